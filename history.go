package chat

import "context"

// History keeps messages and gives each its place. It is what makes order,
// resuming and the filling of gaps possible.
//
// Its methods are safe for concurrent use and respect ctx. An error that is not
// listed means that the history cannot answer now; the service tells its users
// "unavailable".
type History interface {
	// Append stores m as the next message of m.Channel and returns it with its
	// Position, when it is kept as durably as this history keeps things. Places of
	// a channel are contiguous within an epoch, also among concurrent calls.
	// After an error the message may have been stored all the same.
	Append(ctx context.Context, m Message) (Message, error)

	// After returns messages of the channel within a limit, oldest first and without a
	// hole between them:
	//
	//   - for the zero Position, the oldest that are kept;
	//   - when the message right after p is kept, what follows p;
	//   - when p is the newest, none;
	//   - otherwise what follows p is lost, or p is unknown. The error then wraps
	//     [ErrGone] and comes together with messages: those behind the hole when p is
	//     of this epoch and older than the newest, or else the oldest that are kept.
	//     There may be none.
	//
	// A message that is older than the history keeps messages is never returned: it
	// counts as no longer kept, whether or not it was deleted yet. The error is nil
	// in the first three cases, also where a hole ends the messages early.
	//
	// After reads and holds no more than about what it returns: a channel may keep
	// thousands of times that, and many clients ask at once. The slice is the caller's.
	After(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error)

	// Last returns the place of the channel's newest message or, when it had
	// none yet, the place before the first, with its epoch.
	Last(ctx context.Context, channel string) (Position, error)
}

// Limit bounds what [History].After returns, and with it what a history reads and
// holds in memory at once.
//
// A history may count what it stores of a message in place of the content, and so end
// sooner. It returns the first message that there is, whatever its size, as long as
// Count is positive. So an answer that is short does not mean that nothing follows: an
// empty one does.
type Limit struct {
	Count int // messages at the most; 0: none
	Bytes int // no message follows those whose contents reach this together; 0: no bound
}

// ends reports whether a limit lets nothing follow messages with this much content.
func (l Limit) ends(messages, bytes int) bool {
	return messages >= l.Count || l.Bytes > 0 && messages > 0 && bytes >= l.Bytes
}

// isShort reports whether an answer ends so early that nothing may follow it: a reader
// looks then whether that is so. A history that counts what it stores counts up to
// eight times the content.
func (l Limit) isShort(messages, bytes int) bool {
	return messages < l.Count && (l.Bytes == 0 || bytes < l.Bytes/8)
}

// SharedHistory is a [History] whose messages several nodes share. A [Registry] that
// connects nodes can compare the names, so that nodes with different histories are
// noticed before messages get lost between them.
type SharedHistory interface {
	// Identity names the data. The name is the same on every node that shares the
	// data, and stays the same when another server takes over with it. It is shown in
	// errors and logs, and holds no password.
	Identity(ctx context.Context) (string, error)
}
