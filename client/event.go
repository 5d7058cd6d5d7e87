package client

import (
	"fmt"
	"time"

	"github.com/reto10/chat/internal/wire"
)

// Event is what a client is told: a [Message], [Joined], [Left], [Connected],
// [Lost] or [Gap]. More may be added; a loop passes over what it does not know.
type Event interface{ event() }

// Message is one notification. Those of a channel come in order and once.
type Message struct {
	ID      string    // opaque; names the channel and the place there
	Channel string    // "" is everyone's, "@ana" ana's own
	Sender  string    // who published it, "" for the program around the service
	Content string    // never empty
	Time    time.Time // UTC, whole milliseconds
}

// Joined says that a user's first socket came.
type Joined Presence

// Left says that a user's last socket went.
type Left Presence

// Presence is who came or went, and where. These events are not kept: what
// happened while there was no connection, or the consumer was behind, is not told;
// [API.Connected] lists who is there.
type Presence struct {
	User    string
	Role    string
	Channel string // "" is the service itself
	Time    time.Time
}

// Connected says that there is a connection: the first, or another after [Lost].
type Connected struct {
	User    string // whose the token is
	Role    string // "admin" or any other
	Session string // the server's name of the connection, as in its log
	// Resumed says that the client asked to go on where it was, and that all that
	// was missed follows. It is false for a first connection that was not given
	// [WithSince], and when [Gap] events follow.
	Resumed bool
}

// Lost says that there is no connection, and that the client goes on trying. It
// comes when a connection ends and whenever a try fails; several in a row may be
// told as one.
type Lost struct {
	Err   error         // why; [ErrBehind] when the consumer cannot keep up
	Retry time.Duration // until the next try
}

// Gap says that messages of a channel may be missing here: the server no longer
// keeps what followed the last one, or has forgotten all, as after a restart with
// its history in memory. What it still has follows.
type Gap struct {
	Channel string // "" is everyone's
	After   string // the id of the last message before the gap
}

func (Message) event()   {}
func (Joined) event()    {}
func (Left) event()      {}
func (Connected) event() {}
func (Lost) event()      {}
func (Gap) event()       {}

// newMessage reads a message of the server's.
func newMessage(m wire.Message) (Message, error) {
	at, err := time.Parse(time.RFC3339, m.Time)
	if m.ID == "" || err != nil {
		return Message{}, fmt.Errorf("%w: a message without id or time", ErrProtocol)
	}
	return Message{ID: m.ID, Channel: m.Channel, Sender: m.Sender, Content: m.Content, Time: at.UTC()}, nil
}

// newPresence reads a user_joined or user_left.
func newPresence(p wire.Presence) (Event, error) {
	at, err := time.Parse(time.RFC3339, p.Time)
	if p.Username == "" || err != nil {
		return nil, fmt.Errorf("%w: a %s without username or time", ErrProtocol, p.Type)
	}
	e := Presence{User: p.Username, Role: p.Role, Channel: p.Channel, Time: at.UTC()}
	if p.Type == wire.TypeUserJoined {
		return Joined(e), nil
	}
	return Left(e), nil
}
