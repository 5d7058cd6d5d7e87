package wire

import (
	"bytes"
	"encoding/json"
	"sync"
	"time"
)

// maxPooled is the largest buffer that is kept for the next event.
const maxPooled = 64 << 10

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

// Message is a stored message. In an answer of GET /messages Type is absent.
type Message struct {
	Type    string `json:"type,omitempty"`
	ID      string `json:"id"`
	Channel string `json:"channel,omitempty"`
	Sender  string `json:"sender"`
	Content string `json:"content"`
	Time    string `json:"time"`
}

// Presence says that a user's first socket came or its last one went.
type Presence struct {
	Type     string `json:"type"`
	Username string `json:"username"`
	Role     string `json:"role"`
	Channel  string `json:"channel,omitempty"`
	Time     string `json:"time"`
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
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// encoder writes JSON without the escapes that only HTML needs.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
}

var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}}

// Marshal is event as JSON.
func Marshal(event any) []byte { return encode(event, bytes.Clone) }

// Frame is event as one text frame.
func Frame(event any) []byte { return encode(event, TextFrame) }

// encode gives event as JSON to copy, which must not keep it.
func encode(event any, copy func([]byte) []byte) []byte {
	e := encoders.Get().(*encoder)
	defer func() {
		if e.buf.Cap() <= maxPooled {
			encoders.Put(e)
		}
	}()
	e.buf.Reset()
	if err := e.json.Encode(event); err != nil {
		panic("wire: an event that is no JSON: " + err.Error()) // events are plain structs of strings
	}
	return copy(bytes.TrimSuffix(e.buf.Bytes(), []byte("\n")))
}
