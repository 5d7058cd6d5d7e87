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

// Roles. Only [RoleAdmin] gives additional rights. A user with any other role is an
// ordinary user. A token without a role means [RoleUser].
const (
	RoleAdmin = "admin"
	RoleUser  = "user"
)

// User is a user's name and role, as a token states them. The zero User is no user.
type User struct {
	Name string // 1 to 128 bytes, see [ValidUsername]
	Role string // RoleAdmin, RoleUser or a role of the embedder
}

// Admin reports whether u has the role [RoleAdmin].
func (u User) Admin() bool { return u.Role == RoleAdmin }

// Position is where a message is in its channel. Within an epoch, Seq counts up by one
// from 1. A history that lost messages starts a new epoch, so no position is used
// twice. The zero Position is before all messages.
type Position struct {
	Epoch string // at most 32 of A-Z a-z 0-9
	Seq   uint64 // 0: before the first message of the epoch
}

// Message is one notification, as the history stored it and as every socket gets it.
type Message struct {
	Position Position  // set by the history
	Channel  string    // "" is everyone's channel, "@ana" is ana's user channel
	Sender   string    // name of the user who published it
	Content  string    // UTF-8 without NUL
	Time     time.Time // UTC, whole milliseconds
}

// ID returns the id that clients see: the channel and the position, opaque to them.
// [ParseID] parses it.
func (m Message) ID() string { return FormatID(m.Channel, m.Position) }

// FormatID returns the id of a position in a channel, as clients see it.
func FormatID(channel string, p Position) string {
	return wire.FormatID(channel, p.Epoch, p.Seq)
}

// ParseID parses an id of [FormatID]. The error wraps [ErrInvalid].
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

// ValidUsername reports whether name is a valid username: 1 to 128 bytes of printable
// UTF-8 with no space at either end ("ana", "ana@example.com", "auth0|123"). At least
// one character must be visible: a name of combining marks alone is invalid. Characters
// that look blank are invalid anywhere in a name. "." and ".." are invalid because
// clients and proxies remove them from URL paths.
func ValidUsername(name string) bool {
	if len(name) < 1 || len(name) > 128 || name == "." || name == ".." {
		return false
	}
	if printableASCII(name) { // every publish checks two names, and most are this simple
		return name[0] != ' ' && name[len(name)-1] != ' '
	}
	if !utf8.ValidString(name) || strings.TrimSpace(name) != name {
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

// printableASCII reports whether all bytes of s are printable ASCII characters or spaces.
func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// blank reports whether a rune that [unicode.IsPrint] accepts looks blank: the fillers
// of Hangul, the empty Braille pattern, blank hieroglyphs, an invisible note. It is false
// for marks: they change the character before them, as an emoji's variation selector
// does.
func blank(r rune) bool {
	switch r {
	case '\u2800', '\U00013441', '\U00013442', '\U0001D159':
		return true
	}
	return r > unicode.MaxLatin1 && !unicode.IsMark(r) && unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// ValidChannel reports whether name is the name of a channel: 1 to 128 of
// A-Z a-z 0-9 . _ : - or a user channel, "@" and a valid username. It reports false for
// "", which is everyone's channel.
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

// UserChannel returns the name of a user's channel. Only this user's sockets are in it:
// the service joins each of them when it connects.
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
// left. Use Equal to compare events.
type Event struct {
	Type    EventType // decides which other fields are set
	Message Message   // set by EventMessage alone, which sets no field below
	User    User      // who joined or left
	Channel string    // where; "" is everyone's channel
	Time    time.Time // when it was announced

	// encoded is the event with its frame, nil if it is not encoded. A copy of an Event
	// keeps this pointer even if the copy was changed. So frame uses it only if
	// encoded.event() equals the event.
	encoded *encodedEvent
}

// Equal reports whether two events have the same fields. It ignores whether they are
// encoded.
func (e Event) Equal(other Event) bool {
	e.encoded, other.encoded = nil, nil
	return e == other
}

// encodedEvent is an event with its frame, encoded once for all sockets. It is never
// changed. The Event of a [fanout.Frame] is an *encodedEvent. Each publish allocates one, so
// it has no room for the other fields of an Event.
type encodedEvent struct {
	message  Message
	presence *Event // nil: the event is message
	bytes    []byte // a whole WebSocket frame
}

// event returns the event, with its encoding.
func (x *encodedEvent) event() Event {
	if x.presence == nil {
		return Event{Type: EventMessage, Message: x.message, encoded: x}
	}
	e := *x.presence
	e.encoded = x
	return e
}

// channel returns the channel in which the event is delivered.
func (x *encodedEvent) channel() string {
	if x.presence == nil {
		return x.message.Channel
	}
	return x.presence.Channel
}

// frame returns the event as a frame for all sockets. It encodes the event if it has no
// encoding, or was changed after encoding.
func (e Event) frame() fanout.Frame {
	if x := e.encoded; x != nil && x.event() == e {
		return fanout.Frame{Bytes: x.bytes, Event: x}
	}
	kept := e // not e itself, which would then always be on the heap
	return eventFrame(&kept)
}

// messageFrame encodes a message.
func messageFrame(m *Message) fanout.Frame {
	x := &encodedEvent{message: *m, bytes: encodeMessage(m)}
	return fanout.Frame{Bytes: x.bytes, Event: x}
}

// eventFrame encodes an event. It keeps e.
func eventFrame(e *Event) fanout.Frame {
	if e.Type == EventMessage {
		return messageFrame(&e.Message)
	}
	change := wire.Presence{
		Type: string(e.Type), Username: e.User.Name, Role: e.User.Role,
		Channel: e.Channel, Time: wire.Time(e.Time),
	}
	var usual [512]byte // on the stack
	x := &encodedEvent{presence: e, bytes: wsframe.Text(change.Append(usual[:0]))}
	return fanout.Frame{Bytes: x.bytes, Event: x}
}

// usualContent is the length in bytes up to which a message's content is usual for a
// notification. The rest of the event is seldom longer than that.
const usualContent = 256

// encodeMessage returns a message as a WebSocket frame.
func encodeMessage(m *Message) []byte {
	stored := storedMessage(m, wire.TypeMessage)
	if len(m.Content) > usualContent {
		return stored.Encode(wsframe.Text)
	}
	var usual [2 * usualContent]byte // on the stack, which takes 80 ns less
	return wsframe.Text(stored.Append(usual[:0]))
}

// textFrame returns an event of package wire as one WebSocket frame.
func textFrame(event any) []byte { return wire.Encode(event, wsframe.Text) }

// storedMessage returns a message as package wire encodes it. typ is "" in answers to
// requests.
func storedMessage(m *Message, typ string) wire.Stored {
	return wire.Stored{
		Type: typ, Channel: m.Channel, Epoch: m.Position.Epoch, Seq: m.Position.Seq,
		Sender: m.Sender, Content: m.Content, Time: m.Time,
	}
}
