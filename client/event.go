package client

import (
	"fmt"
	"time"

	"github.com/reto10/chat/internal/wire"
)

// Event is one of [Message], [UserJoined], [UserLeft], [Welcome], [Lost] and [Gap].
// Later versions may add types; a loop over the events skips types it does not know.
type Event interface{ event() }

// Message is one notification. The messages of a channel arrive in order, each once.
type Message struct {
	ID      string    // opaque; names the channel and the position in it
	Channel string    // "" is everyone's channel, "@ana" is ana's user channel
	Sender  string    // who published it, "" for the program that runs the service
	Content string    // never empty
	Time    time.Time // UTC, whole milliseconds
}

// UserJoined says that a user's first socket joined a channel or the service.
//
// It and [UserLeft] are not stored. What happened while the client was not connected,
// or dropped events, is never announced; [API.Connected] lists who is connected.
type UserJoined struct {
	User    string    // the name
	Role    string    // "admin" or any other
	Channel string    // "" is the service itself
	Time    time.Time // when the server announced it, UTC
}

// UserLeft says that a user's last socket left a channel or the service.
type UserLeft struct {
	User    string    // the name
	Role    string    // "admin" or any other
	Channel string    // "" is the service itself
	Time    time.Time // when the server announced it, UTC
}

// Welcome says that the client is connected: for the first time, or again after [Lost].
type Welcome struct {
	User         string // the token's user
	Role         string // "admin" or any other
	ConnectionID string // the server's name for this connection, as in its log
	// Resumed is true if the client continued where it was, and every missed message
	// follows. It is false for a first connection without [WithSince], and when [Gap]
	// events follow.
	Resumed bool
}

// Lost says that the client is not connected and will retry. It follows the end of a
// connection and each failed attempt; one Lost may stand for several in a row.
type Lost struct {
	Err   error         // why; [ErrBehind] when the consumer is too slow
	Retry time.Duration // until the next attempt
}

// Gap says that messages of a channel may be missing at this point. The server no
// longer has the messages after the last one, or lost its history, as after a restart
// with the history in memory. The messages that it still has follow.
type Gap struct {
	Channel string // "" is everyone's channel
	After   string // the id of the last message before the gap
}

func (Message) event()    {}
func (UserJoined) event() {}
func (UserLeft) event()   {}
func (Welcome) event()    {}
func (Lost) event()       {}
func (Gap) event()        {}

// newMessage converts a message from the wire.
func newMessage(m wire.Message) (Message, error) {
	at, err := time.Parse(time.RFC3339, m.Time)
	if m.ID == "" || err != nil {
		return Message{}, fmt.Errorf("%w: a message without id or time", ErrProtocol)
	}
	return Message{ID: m.ID, Channel: m.Channel, Sender: m.Sender, Content: m.Content, Time: at.UTC()}, nil
}

// newPresenceEvent converts a user_joined or user_left from the wire.
func newPresenceEvent(p wire.Presence) (Event, error) {
	at, err := time.Parse(time.RFC3339, p.Time)
	if p.Username == "" || err != nil {
		return nil, fmt.Errorf("%w: a %s without username or time", ErrProtocol, p.Type)
	}
	e := UserJoined{User: p.Username, Role: p.Role, Channel: p.Channel, Time: at.UTC()}
	if p.Type == wire.TypeUserJoined {
		return e, nil
	}
	return UserLeft(e), nil
}
