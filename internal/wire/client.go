package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/reto10/chat/internal/jsonobject"
)

// ParseEvent decodes an event for a client: a [Welcome], [Message], [Presence], [Ack] or
// [Error], and nil for an unknown type. It ignores unknown fields, so that servers can
// add some.
func ParseEvent(text []byte) (event any, err error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	var head struct {
		Type *string `json:"type"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("not an event: %w", jsonobject.PlainError(err))
	}
	if head.Type == nil {
		return nil, errors.New("not an event: it has no type")
	}
	switch *head.Type {
	case TypeWelcome:
		event, err = parseAs[Welcome](text)
	case TypeMessage:
		event, err = parseAs[Message](text)
	case TypeUserJoined, TypeUserLeft:
		event, err = parseAs[Presence](text)
	case TypeAck:
		event, err = parseAs[Ack](text)
	case TypeError:
		event, err = parseAs[Error](text)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%.40s: %w", *head.Type, jsonobject.PlainError(err))
	}
	return event, nil
}

func parseAs[T any](text []byte) (any, error) {
	var v T
	err := json.Unmarshal(text, &v)
	return v, err
}

// MarshalCommand encodes a command as JSON, for ParseCommand to read.
func MarshalCommand(c Command) []byte { return Marshal(c) }
