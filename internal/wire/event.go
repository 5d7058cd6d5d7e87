package wire

import (
	"bytes"
	"encoding/json"
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

// Marshal is event as JSON, without the escapes that only HTML needs.
func Marshal(event any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(event); err != nil {
		panic("wire: an event that is no JSON: " + err.Error()) // events are plain structs of strings
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Frame is event as one text frame.
func Frame(event any) []byte { return TextFrame(Marshal(event)) }
