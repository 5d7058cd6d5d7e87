package wire

import (
	"bytes"
	"strconv"
	"time"
)

// Types of the events a server sends.
const (
	TypeWelcome    = "welcome"
	TypeMessage    = "message"
	TypeUserJoined = "user_joined"
	TypeUserLeft   = "user_left"
	TypeAck        = "ack"
	TypeError      = "error"
)

// Codes of an error event.
const (
	CodeForbidden   = "forbidden"
	CodeInvalid     = "invalid"
	CodeTooLarge    = "too_large"
	CodeRateLimited = "rate_limited"
	CodeNotJoined   = "not_joined"
	CodeUnavailable = "unavailable"
)

// Welcome is the first event of every socket.
type Welcome struct {
	Type      string   `json:"type"`
	Session   string   `json:"session"`
	User      string   `json:"user"`
	Role      string   `json:"role"`
	ExpiresIn int64    `json:"expires_in"`
	Since     []string `json:"since"`
	Recovered *bool    `json:"recovered,omitempty"`
}

func (w Welcome) appendTo(b []byte) []byte {
	b = append(appendMember(append(b, '{'), "type", w.Type), ',')
	b = append(appendMember(b, "session", w.Session), ',')
	b = append(appendMember(b, "user", w.User), ',')
	b = append(appendMember(b, "role", w.Role), `,"expires_in":`...)
	b = append(strconv.AppendInt(b, w.ExpiresIn, 10), `,"since":[`...)
	for i, id := range w.Since {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, id)
	}
	b = append(b, ']')
	if w.Recovered != nil {
		b = strconv.AppendBool(append(b, `,"recovered":`...), *w.Recovered)
	}
	return append(b, '}')
}

// Message is a stored message. In an answer of GET /messages Type is absent.
type Message struct {
	Type    string `json:"type,omitempty"`
	ID      string `json:"id"`
	Channel string `json:"channel,omitempty"`
	Sender  string `json:"sender"`
	Content string `json:"content"`
	Time    string `json:"time"`
}

func (m Message) appendTo(b []byte) []byte {
	b = append(b, '{')
	if m.Type != "" {
		b = append(appendMember(b, "type", m.Type), ',')
	}
	b = append(appendMember(b, "id", m.ID), ',')
	if m.Channel != "" {
		b = append(appendMember(b, "channel", m.Channel), ',')
	}
	b = append(appendMember(b, "sender", m.Sender), ',')
	b = append(appendMember(b, "content", m.Content), ',')
	return append(appendMember(b, "time", m.Time), '}')
}

// Presence says that a user's first socket came or its last one went.
type Presence struct {
	Type     string `json:"type"`
	Username string `json:"username"`
	Role     string `json:"role"`
	Channel  string `json:"channel,omitempty"`
	Time     string `json:"time"`
}

func (p Presence) appendTo(b []byte) []byte {
	b = append(appendMember(append(b, '{'), "type", p.Type), ',')
	b = append(appendMember(b, "username", p.Username), ',')
	b = append(appendMember(b, "role", p.Role), ',')
	if p.Channel != "" {
		b = append(appendMember(b, "channel", p.Channel), ',')
	}
	return append(appendMember(b, "time", p.Time), '}')
}

// Ack answers a command that was carried out.
type Ack struct {
	Type      string `json:"type"`
	Ref       Ref    `json:"ref,omitempty"`
	ID        string `json:"id,omitempty"`
	Since     string `json:"since,omitempty"`
	Recovered *bool  `json:"recovered,omitempty"`
	ExpiresIn *int64 `json:"expires_in,omitempty"`
}

// Error answers a command that was refused; the socket stays open.
type Error struct {
	Type    string `json:"type"`
	Ref     Ref    `json:"ref,omitempty"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Time writes t as the protocol does: RFC 3339, UTC, milliseconds.
func Time(t time.Time) string {
	const layout = "2006-01-02T15:04:05.000Z"
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.Format(layout)
	}
	hour, minute, second := t.Clock()
	b := [len(layout)]byte{4: '-', 7: '-', 10: 'T', 13: ':', 16: ':', 19: '.', 23: 'Z'}
	digits(b[0:4], year)
	digits(b[5:7], int(month))
	digits(b[8:10], day)
	digits(b[11:13], hour)
	digits(b[14:16], minute)
	digits(b[17:19], second)
	digits(b[20:23], t.Nanosecond()/1e6)
	return string(b[:])
}

// digits fills b with n, zeros in front.
func digits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// AppendMessage appends a message as JSON, as a frame has it.
func AppendMessage(b []byte, m Message) []byte { return m.appendTo(b) }

// Marshal is event as JSON.
func Marshal(event any) []byte { return Encode(event, bytes.Clone) }
