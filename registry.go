package chat

import (
	"context"
	"time"
)

// Registry holds the live sockets and delivers messages to them.
//
// The default is a [MemoryRegistry], for one process. A registry for several nodes
// usually embeds a *MemoryRegistry, which delivers on its own node, and overrides what
// has to reach the others. To add something to any registry, embed the interface
// Registry and override the methods in question.
//
// All methods must be safe for concurrent use, except Start, which is called once, and
// Announce, which one goroutine at a time calls. Methods with a ctx respect it. The service
// makes the calls for one socket one after the other. An error means that the registry
// cannot do this now; clients get it as "unavailable".
type Registry interface {
	// Start is called once, by [New], before every other method.
	//
	// history is the one given to [WithHistory], nil for none: then the registry
	// chooses one. Start returns the history that the service has to use. A registry for
	// several nodes rejects a history that belongs to one process. The error is part of
	// that of New, so it names the option to set.
	//
	// The registry calls changed whenever a user's first socket joins a channel or the
	// last one leaves it, on any node. The changes of one user come in their order.
	// changed is not nil, is safe for concurrent use, returns at once and calls no
	// method of the registry.
	Start(history History, changed func(PresenceChange)) (History, error)

	// Check returns an error when published messages would not be delivered now. The
	// service calls it before it stores a message, so it returns at once.
	Check(ctx context.Context) error

	// Add adds a socket and returns how many sockets its user has on all nodes, s
	// included. s is in no channel yet.
	//
	// When that is more than limit, the registry first makes sure that the sockets it
	// counts are still connected, which may take about a second: those of a node that
	// has died do not count. With limit 0 an estimate will do. After an error the
	// registry does not have the socket.
	Add(ctx context.Context, s Socket, limit int) (sockets int, err error)

	// Remove removes a socket from all channels and from the registry. The service calls
	// it after each Add that did not return an error, also one that panicked. Removing
	// an unknown socket does nothing. Remove does not wait for other nodes: what they
	// cannot be sent now, they get later.
	Remove(ctx context.Context, s Socket) error

	// Join makes s a member of a channel and returns a position. Every message after
	// that position is delivered to s once, in order. "" is everyone's channel;
	// the service joins each socket to it and to its user channel.
	//
	// The position may be before the history's last one: messages that are stored but
	// not yet published are still delivered. If s is a member already, then all messages
	// up to the position have been delivered, and none after it was delivered before
	// the call. The service joins a socket to its channels again when the role of its
	// user has changed. After an error s is a member only if it was one before.
	Join(ctx context.Context, s Socket, channel string) (Position, error)

	// Leave undoes Join. Messages that are published after it returns are not
	// delivered to s.
	Leave(ctx context.Context, s Socket, channel string) error

	// Publish delivers stored messages to the members of their channels on all nodes.
	// It returns when the registry has taken them. Concurrent calls may come in another
	// order than the positions. Delivery follows the positions, and the registry reads a
	// missing message from the history first.
	Publish(ctx context.Context, msgs ...Message) error

	// Announce delivers presence events to the members of a channel on this node, or to
	// the admins among them only. It returns at once. It takes ownership of
	// events.
	Announce(channel string, adminsOnly bool, events []Event)

	// Connected lists the users in a channel on all nodes, sorted by name. "" lists all
	// connected users. A user's channel lists that user while they are connected.
	Connected(ctx context.Context, channel string) ([]Presence, error)

	// CloseUser closes sockets of a user on all nodes, oldest first, until keep remain.
	// It returns how many it closes.
	CloseUser(ctx context.Context, username string, keep int, code CloseCode, reason string) (closed int, err error)

	// Flush returns when all messages published before the call are written to the
	// sockets of this node, or wait in the backlog of a slow one.
	Flush(ctx context.Context) error

	// Stats returns the registry's figures for this node.
	Stats() RegistryStats
}

// RegistryStats are the figures of a [Registry] for its node. A registry leaves those
// that it does not count zero.
type RegistryStats struct {
	Users           int       // with sockets here
	Deliveries      uint64    // events delivered to sockets: messages times receivers
	DroppedPresence uint64    // joins and leaves that this node never announced
	FanOut          Histogram // from Publish to the last socket of each shard
}

// Socket is a live connection as a [Registry] sees it. The registry identifies a socket
// by its ID alone, so a registry may wrap sockets.
//
// A [MemoryRegistry] encodes an [Event] once for all sockets before it calls Deliver. A
// wrapper that passes the event on unchanged keeps the encoding. An event that was
// changed, or made by the registry itself, is encoded for each socket.
type Socket interface {
	ID() string       // unique among all sockets
	User() User       // the role may change with the token
	Since() time.Time // when it connected

	// Deliver queues an event. It never blocks.
	Deliver(Event)
	// Close sends a close frame after the messages that are queued. During a replay it
	// drops messages that wait for the replay's end. It never blocks.
	Close(code CloseCode, reason string)
}

// Presence is a user in a channel.
type Presence struct {
	User        User      // the role is that of the user's newest socket there
	Connections int       // sockets there, at least 1
	Since       time.Time // when the first of them joined
}

// PresenceChange says that a user's first socket joined a channel, or that the last one
// left it.
type PresenceChange struct {
	Channel string // "": everyone's channel, which means the service
	User    User   // who joined or left
	Joined  bool   // false: left
	Size    int    // users there after the change

	// JoinSize is how many users were there right after this user joined. The registry
	// keeps it with the user, the same on all nodes, and repeats it when the user leaves.
	// By it every node knows whether a join was announced to everyone, also by another
	// node.
	//
	// For a user who left and soon joined again it is the smaller of the two sizes: the
	// two changes may cancel out within a presence window, and then the earlier join is
	// the one that was announced. 0 is unknown: then the leave is announced to everyone.
	JoinSize int
}
