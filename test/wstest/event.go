package wstest

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Event has the fields of every event of the protocol, and of a message in an
// answer to an HTTP request.
type Event struct {
	Type      string          `json:"type"`
	Session   string          `json:"session,omitempty"`
	User      string          `json:"user,omitempty"`
	Role      string          `json:"role,omitempty"`
	ExpiresIn *int            `json:"expires_in,omitempty"`
	Since     json.RawMessage `json:"since,omitempty"` // SinceIDs reads it
	Recovered *bool           `json:"recovered,omitempty"`
	ID        string          `json:"id,omitempty"`
	Channel   string          `json:"channel,omitempty"`
	Sender    string          `json:"sender,omitempty"`
	Content   string          `json:"content,omitempty"`
	Time      string          `json:"time,omitempty"`
	Username  string          `json:"username,omitempty"`
	Ref       json.RawMessage `json:"ref,omitempty"`
	Code      string          `json:"code,omitempty"`
	Message   string          `json:"message,omitempty"`
}

// DecodeEvent reads an event strictly: one JSON object without unknown fields.
func DecodeEvent(text string) (Event, error) {
	var e Event
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e, illegal("event %.200q: %v", text, err)
	}
	if dec.More() {
		return e, illegal("more than one event in %.200q", text)
	}
	return e, nil
}

// Event decodes a text frame.
func (f Frame) Event() (Event, error) {
	if f.Opcode != OpText {
		return Event{}, fmt.Errorf("a frame of opcode %#x, want an event", f.Opcode)
	}
	return DecodeEvent(f.Payload)
}

// SinceIDs returns the ids in the since of a welcome, or the one of an ack.
func (e Event) SinceIDs() []string {
	var list []string
	if json.Unmarshal(e.Since, &list) != nil {
		var one string
		_ = json.Unmarshal(e.Since, &one)
		list = []string{one}
	}
	return list
}

// IsPresence reports whether the event announces that somebody joined or left.
func (e Event) IsPresence() bool { return e.Type == "user_joined" || e.Type == "user_left" }
