package chat

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/internal/wsframe"
)

// Roles. Only [RoleAdmin] means something to the service; any other string is
// an ordinary user's, and a token without a role is a [RoleUser]'s.
const (
	RoleAdmin = "admin"
	RoleUser  = "user"
)

// User is who a token says somebody is. The zero User is nobody.
type User struct {
	Name string // 1 to 128 bytes, see [ValidUsername]
	Role string // RoleAdmin, RoleUser or the embedder's own
}

// Admin reports whether u may do what the protocol keeps for admins.
func (u User) Admin() bool { return u.Role == RoleAdmin }

// Position is where a message stands in its channel. Within an epoch the places of
// a channel count 1, 2, 3… without holes; a history that lost its memory starts
// a new epoch, so that an old place is never taken for a new one. The zero Position
// stands before everything.
type Position struct {
	Epoch string // at most 32 of A-Z a-z 0-9
	Seq   uint64 // 0: before the first message of the epoch
}

// Message is one notification, as it was stored and as every socket sees it.
type Message struct {
	Position Position  // given by the history
	Channel  string    // "" is everyone's channel, "@ana" is ana's own
	Sender   string    // who published it
	Content  string    // UTF-8 without NUL
	Time     time.Time // UTC, whole milliseconds
}

// ID is the message's name on the wire: its channel and its place there, opaque
// to clients. [ParseID] reads it back.
func (m Message) ID() string { return FormatID(m.Channel, m.Position) }

// FormatID names a place in a channel as clients see it.
func FormatID(channel string, p Position) string {
	return wire.FormatID(channel, p.Epoch, p.Seq)
}

// ParseID reads what [FormatID] wrote. The error wraps [ErrInvalid].
func ParseID(id string) (channel string, p Position, err error) {
	channel, epoch, seq, err := wire.ParseID(id)
	if err != nil {
		return "", Position{}, wrapf(ErrInvalid, "message id %q: %v", shorten(id), err)
	}
	if channel != "" && !ValidChannel(channel) {
		return "", Position{}, wrapf(ErrInvalid, "message id %q names no valid channel", shorten(id))
	}
	return channel, Position{Epoch: epoch, Seq: seq}, nil
}

// ValidUsername reports whether name can be a user's: 1 to 128 bytes of
// printable UTF-8 with no space at either end ("ana", "ana@example.com",
// "auth0|123"). It has to show: marks alone are no name, and letters that look like
// nothing or like a space are nowhere in one. "." and ".." are none, since a URL's path
// goes on without them.
func ValidUsername(name string) bool {
	if len(name) < 1 || len(name) > 128 || !utf8.ValidString(name) || strings.TrimSpace(name) != name {
		return false
	}
	if name == "." || name == ".." {
		return false
	}
	shows := false
	for _, r := range name {
		if !unicode.IsPrint(r) || blank(r) {
			return false
		}
		shows = shows || r != ' ' && !unicode.IsMark(r)
	}
	return shows
}

// blank reports whether a rune that Go takes for a printable letter or symbol looks
// like nothing or like a space: the fillers of Hangul, the empty Braille pattern, blank
// hieroglyphs, an invisible note. Marks are not among them: they change what is before
// them, as an emoji's variation selector does.
func blank(r rune) bool {
	switch r {
	case '\u2800', '\U00013441', '\U00013442', '\U0001D159':
		return true
	}
	return r > unicode.MaxLatin1 && !unicode.IsMark(r) && unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// ValidChannel reports whether name can be a channel's: 1 to 128 of
// A-Z a-z 0-9 . _ : - or "@" and a username, which is that user's own channel.
// Everyone's channel has no name and is not valid here.
func ValidChannel(name string) bool {
	if owner, ok := strings.CutPrefix(name, "@"); ok {
		return ValidUsername(owner)
	}
	if len(name) < 1 || len(name) > 128 {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return true
}

// UserChannel is the channel that only the user of that name reads. It is joined
// for them when they connect.
func UserChannel(username string) string { return "@" + username }

// EventType is the kind of an [Event].
type EventType string

// The events that reach a socket through a [Registry].
const (
	EventMessage    EventType = wire.TypeMessage
	EventUserJoined EventType = wire.TypeUserJoined
	EventUserLeft   EventType = wire.TypeUserLeft
)

// Event is what a [Registry] delivers to a [Socket]: a message, or that a user joined or
// left. Events are compared with Equal.
type Event struct {
	Type    EventType // says which of the others are set
	Message Message   // of EventMessage, which sets nothing below
	User    User      // who joined or left
	Channel string    // where, "" for the service itself
	Time    time.Time // when it was announced

	// encoded is the event with its frame, nil where nobody has encoded it. It stays
	// with copies that were changed, so it counts only while it equals the event.
	encoded *encodedEvent
}

// Equal reports whether two events say the same. It ignores whether they are encoded.
func (e Event) Equal(other Event) bool {
	e.encoded, other.encoded = nil, nil
	return e == other
}

// encodedEvent is an event with its frame, encoded once for all sockets. Nobody changes
// it. It is what a hub's frame carries as its Event.
type encodedEvent struct {
	Event
	bytes []byte // a whole WebSocket frame
}

// frame is the event as every socket gets it. It is encoded here unless that was done
// before.
func (e Event) frame() fanout.Frame {
	if x := e.encoded; x != nil && x.Event == e {
		return fanout.Frame{Bytes: x.bytes, Event: x}
	}
	return eventFrame(e)
}

// messageFrame is a message as every socket gets it.
func messageFrame(m Message) fanout.Frame { return eventFrame(Event{Type: EventMessage, Message: m}) }

// eventFrame encodes an event.
func eventFrame(e Event) fanout.Frame {
	x := &encodedEvent{Event: e}
	x.encoded = x
	if e.Type == EventMessage {
		x.bytes = encodeMessage(e.Message)
	} else {
		x.bytes = textFrame(wire.Presence{
			Type: string(e.Type), Username: e.User.Name, Role: e.User.Role,
			Channel: e.Channel, Time: wire.Time(e.Time),
		})
	}
	return fanout.Frame{Bytes: x.bytes, Event: x}
}

// encodeMessage is a message as a WebSocket frame.
func encodeMessage(m Message) []byte { return textFrame(wireMessage(m, wire.TypeMessage)) }

// textFrame is an event of package wire as one WebSocket frame.
func textFrame(event any) []byte { return wire.Encode(event, wsframe.Text) }

func wireMessage(m Message, typ string) wire.Message {
	return wire.Message{
		Type: typ, ID: m.ID(), Channel: m.Channel,
		Sender: m.Sender, Content: m.Content, Time: wire.Time(m.Time),
	}
}
