package chat

import "context"

// History stores messages and gives each its position. Positions make it possible to
// order messages, to resume after a reconnect and to fill gaps.
//
// The methods must be safe for concurrent use and respect ctx. Any error that is not
// listed below means that the history cannot answer now; the service answers
// "unavailable".
type History interface {
	// Append stores messages of one channel or of several. It returns when they are as
	// durable as this history makes them. The result has the same messages in the same
	// order, each with its Position. It is a new slice: Append neither changes msgs nor
	// keeps it.
	//
	// The positions of a channel are contiguous within an epoch, also among concurrent
	// calls. A call's messages of one channel get theirs in the order in which they are
	// given; messages of other calls may lie between them.
	//
	// After an error the result is nil, and any number of the messages may have been
	// stored. Without messages Append does nothing and returns no error.
	Append(ctx context.Context, msgs ...Message) ([]Message, error)

	// After returns messages of a channel, oldest first, without a gap between them and
	// within the limit:
	//
	//   - If p is the zero Position, it returns the oldest messages that are kept.
	//   - If the message right after p is kept, it returns the messages that follow p.
	//   - If p is the newest position, it returns none.
	//   - Otherwise p is unknown, or what follows it is no longer kept. Then the error
	//     wraps [ErrGone] and comes with messages. If p is of this epoch and older than
	//     the newest, they are those after the gap, otherwise the oldest that are kept.
	//     There may be none.
	//
	// The error is nil in the first three cases, also if a gap ends the messages early.
	// A message that is older than the history's maximum age is never returned. It counts
	// as no longer kept, even if it was not deleted yet.
	//
	// After must not read or hold much more than it returns: a channel may keep thousands
	// of times that, and many clients ask at once. The slice is the caller's.
	After(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error)

	// Last returns the position of the channel's newest message. If the channel had no
	// message yet, Last returns the position before the first, with its epoch.
	Last(ctx context.Context, channel string) (Position, error)
}

// Limit bounds what [History].After returns, and so what a history reads and holds in
// memory at once.
//
// A history may count the stored size of a message instead of its content, and so stop
// earlier. If Count is positive it returns at least one message, whatever its size, when
// there is one. So only an empty answer means that nothing follows.
type Limit struct {
	Count int // maximum number of messages; 0: none
	Bytes int // no message follows once the contents reach this together; 0: no bound
}

// ends reports whether the limit is reached by messages with this much content.
func (l Limit) ends(messages, bytes int) bool {
	return messages >= l.Count || l.Bytes > 0 && messages > 0 && bytes >= l.Bytes
}

// isShort reports whether an answer is so short that nothing may follow it. A reader then
// has to check. Stored messages take up to eight times the bytes of their content.
func (l Limit) isShort(messages, bytes int) bool {
	return messages < l.Count && (l.Bytes == 0 || bytes < l.Bytes/8)
}

// SharedHistory is a [History] whose messages several nodes share. A [Registry] for
// several nodes compares their names, and so detects nodes with different histories
// before messages are lost.
type SharedHistory interface {
	// Identity returns the name of the data. The name is the same on every node that
	// shares the data, and stays the same after a failover to another server. It appears
	// in errors and logs and must not contain a password.
	Identity(ctx context.Context) (string, error)
}
