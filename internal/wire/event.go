package wire

import "time"

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

// Welcome is the first event on every socket.
type Welcome struct {
	Type      string   `json:"type"`
	Session   string   `json:"session"`
	User      string   `json:"user"`
	Role      string   `json:"role"`
	ExpiresIn int64    `json:"expires_in"`
	Since     []string `json:"since"`
	Recovered *bool    `json:"recovered,omitempty"`
}

// Message is a stored message. GET /messages answers without a Type.
type Message struct {
	Type    string `json:"type,omitempty"`
	ID      string `json:"id"`
	Channel string `json:"channel,omitempty"`
	Sender  string `json:"sender"`
	Content string `json:"content"`
	Time    string `json:"time"`
}

// Presence announces that a user joined or left: their first socket connected or their
// last one ended.
type Presence struct {
	Type     string `json:"type"`
	Username string `json:"username"`
	Role     string `json:"role"`
	Channel  string `json:"channel,omitempty"`
	Time     string `json:"time"`
}

// Ack answers a command that succeeded.
type Ack struct {
	Type      string `json:"type"`
	Ref       Ref    `json:"ref,omitempty"`
	ID        string `json:"id,omitempty"`
	Since     string `json:"since,omitempty"`
	Recovered *bool  `json:"recovered,omitempty"`
	ExpiresIn *int64 `json:"expires_in,omitempty"`
}

// Error answers a command that failed. The socket stays open.
type Error struct {
	Type    string `json:"type"`
	Ref     Ref    `json:"ref,omitempty"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Time formats t as the protocol does: RFC 3339, UTC, milliseconds.
func Time(t time.Time) string {
	var short [len(timeLayout)]byte
	return string(appendTime(short[:0], t))
}

const timeLayout = "2006-01-02T15:04:05.000Z"

// appendTime appends what Time returns.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, timeLayout)
	}
	hour, minute, second := t.Clock()
	text := [len(timeLayout)]byte{4: '-', 7: '-', 10: 'T', 13: ':', 16: ':', 19: '.', 23: 'Z'}
	digits(text[0:4], year)
	digits(text[5:7], int(month))
	digits(text[8:10], day)
	digits(text[11:13], hour)
	digits(text[14:16], minute)
	digits(text[17:19], second)
	digits(text[20:23], t.Nanosecond()/1e6)
	return append(b, text[:]...)
}

// digits fills b with the decimal digits of n, padded with zeros.
func digits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}
