package chat

import (
	"context"
	"time"
)

// Registry holds the live sockets and brings messages to them. The one in memory
// is the default; one that spans several nodes usually embeds a [MemoryRegistry],
// carries messages between the nodes and hands them to it.
//
// Its methods are safe for concurrent use and respect ctx; those that take a
// Socket are called one after the other for each socket. An error means that it
// cannot be done now ("unavailable" for a user).
type Registry interface {
	// Add adds a socket, which is in no channel yet, and returns how many
	// its user has now on all nodes, s included.
	Add(ctx context.Context, s Socket) (sockets int, err error)

	// Remove removes a socket from every channel and from the registry. It
	// is called once for each Connect that succeeded and does not wait for
	// anything remote: what cannot be told now is told later. Doing so again
	// changes nothing.
	Remove(ctx context.Context, s Socket) error

	// Join makes s a member of a channel. Every message after the returned place
	// is delivered to s, in order, once. To one that is a member already, all up to
	// that place has been delivered, and nothing behind it before the call: the
	// place never lies behind one that was delivered then. It may lie behind the
	// history's last: what is stored and not handed on yet comes. After an error s
	// is a member if it was one before. "" is everyone's channel, which the service
	// joins each socket to. A socket whose user's role has changed joins its
	// channels again.
	Join(ctx context.Context, s Socket, channel string) (Position, error)

	// Leave undoes Join. What is broadcast after it returns is not delivered.
	Leave(ctx context.Context, s Socket, channel string) error

	// Publish delivers a stored message to the members of its channel on all
	// nodes, and returns when it is handed on. Concurrent calls may come in
	// another order than the places; delivery is in the order of the places, and
	// a missing one is read from the history first.
	Publish(ctx context.Context, m Message) error

	// Connected lists who is in a channel on all nodes, sorted by name; "" lists
	// everyone.
	Connected(ctx context.Context, channel string) ([]Presence, error)

	// CloseUser closes a user's sockets on all nodes, oldest first, until keep
	// remain, and returns how many those were.
	CloseUser(ctx context.Context, username string, keep int, code CloseCode, reason string) (closed int, err error)
}

// Socket is a live connection as a [Registry] sees it.
type Socket interface {
	ID() string       // unique among all sockets
	User() User       // whose it is; the role may change with the token
	Since() time.Time // when it came

	// Deliver queues an event. It never blocks.
	Deliver(Event)
	// Close sends what was delivered, then the close frame. It never blocks.
	Close(code CloseCode, reason string)
}

// Presence is a user in a channel.
type Presence struct {
	User        User      // in the role of the newest socket there, the one that connected last
	Connections int       // sockets there, at least 1
	Since       time.Time // when the first of them came
}

// PresenceChange says that a user's first socket came to a channel, or that the
// last one went.
type PresenceChange struct {
	Channel string // "": the service itself
	User    User   // who came or went
	Joined  bool   // false: left
	Size    int    // users there after it

	// JoinSize is how many users were there right after this user joined. The
	// registry keeps it with the user, for all nodes alike, and repeats it when the
	// user leaves: so every node knows whether others may have announced the join
	// to everyone. Of a user who left and soon joined again it is the smaller of the
	// two sizes: within a presence window that is no news, so what counts is the
	// earlier join. 0 is unknown: then the leave is announced to everyone.
	JoinSize int
}

// PresenceSource is a [Registry] that tells of comings and goings on all nodes.
// Without it no user_joined and user_left are sent. A registry that embeds a
// [MemoryRegistry] and spans several nodes has its own: the embedded one knows
// of this node alone.
type PresenceSource interface {
	// WatchPresence has fn called for every change, those of one user in order.
	// It is called once, before the registry is used. fn returns at once and
	// calls nothing of the registry.
	WatchPresence(fn func(PresenceChange))
}

// Notifier is a [Registry] that can bring an event to the sockets of this node
// alone. A [PresenceSource] has to be one, too.
type Notifier interface {
	// Announce delivers events to this node's members of a channel, or to the
	// admins among them only. It returns at once and keeps events.
	Announce(channel string, adminsOnly bool, events []Event)
}

// HistoryReader is a [Registry] that reads missing messages from the history.
type HistoryReader interface {
	// ReadHistory is called once, before the registry is used. An error says that
	// the registry cannot work with this history. It is the error of [New].
	ReadHistory(h History) error
}

// SocketCounter is a [Registry] of several nodes that can tell sockets that are
// connected from those of a node that has died, which count until its lease ends.
// The service asks it before it closes a socket with [CloseTooMany], so that
// clients of a dead node are never turned away for good.
type SocketCounter interface {
	// CountSockets returns how many sockets of its user were connected when s was,
	// s included, without those of nodes that do not answer now. It is called
	// right after Connect, and may take about a second. After an error, s is told
	// to retry.
	CountSockets(ctx context.Context, s Socket) (sockets int, err error)
}

// HealthChecker is a [Registry] that can tell whether messages get through now. It
// is asked before a message is stored: one that could not be handed on is refused
// then, and nothing of it is done.
type HealthChecker interface {
	// Check returns at once. An error means that nothing can be handed on.
	Check(ctx context.Context) error
}

// Flusher is a [Registry] that can tell when what was broadcast before has been
// delivered to the sockets of this node.
type Flusher interface {
	// Flush returns when all that Broadcast was called with before has been
	// written to the sockets of this node, or waits in the backlog of a slow one;
	// or with ctx's error.
	Flush(ctx context.Context) error
}
