package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/reto10/chat/internal/jsonobject"
)

// Types of the commands a chat.v1 client sends.
const (
	TypeBroadcast = "broadcast"
	TypeJoin      = "join"
	TypeLeave     = "leave"
	TypeRefresh   = "refresh"
)

const maxRef = 128

// Ref is a client's name for a command: a JSON string or number of at most 128 bytes. The
// answer repeats it unchanged.
type Ref = json.RawMessage

// Command is one frame of a chat.v1 client. Its Type decides which of the other fields
// are given, except Ref, which is always optional.
type Command struct {
	Type    string  `json:"type"`
	Content *string `json:"content,omitempty"` // broadcast
	Channel *string `json:"channel,omitempty"` // broadcast (optional), join, leave
	Since   *string `json:"since,omitempty"`   // join (optional)
	Token   *string `json:"token,omitempty"`   // refresh
	Ref     Ref     `json:"ref,omitempty"`
}

// ParseCommand reads one frame's text, which is valid UTF-8. Ref is a part of it. On an
// error the command has the ref alone, if that is valid, for the answer.
func ParseCommand(text []byte) (Command, error) {
	members, err := jsonobject.Parse(text)
	if err != nil {
		return Command{}, err
	}
	ref := Ref(members.Get("ref"))
	refErr := checkRef(ref)
	if refErr != nil {
		ref = nil
	}
	c := Command{Ref: ref}
	err = members.Check("type", "ref", "content", "channel", "since", "token")
	if err == nil {
		err = refErr
	}
	if err == nil {
		err = c.fill(members)
	}
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return Command{Ref: ref}, err
	}
	return c, nil
}

// fill sets the fields that are strings.
func (c *Command) fill(members jsonobject.Members) error {
	values := make([]string, 0, 5) // enough for all fields, so that the pointers to them stay valid
	for _, m := range members {
		if string(m.Name) == "ref" {
			continue
		}
		if m.Value[0] != '"' {
			var s string
			err := json.Unmarshal(m.Value, &s) // never nil; names the type that it found
			typ, _ := errors.AsType[*json.UnmarshalTypeError](err)
			return fmt.Errorf("%q has the wrong type: %s", m.Name, typ.Value)
		}
		values = append(values, jsonobject.Text(m.Value))
		value := &values[len(values)-1]
		switch string(m.Name) {
		case "type":
			c.Type = *value
		case "content":
			c.Content = value
		case "channel":
			c.Channel = value
		case "since":
			c.Since = value
		case "token":
			c.Token = value
		}
	}
	return nil
}

func checkRef(ref Ref) error {
	if len(ref) == 0 {
		return nil
	}
	if len(ref) > maxRef {
		return fmt.Errorf("ref is over %d bytes", maxRef)
	}
	if c := ref[0]; c != '"' && c != '-' && (c < '0' || c > '9') {
		return errors.New("ref is neither a string nor a number")
	}
	return nil
}

// use is whether a command has a field.
type use int8

const (
	absent use = iota
	optional
	required
)

// fieldsOf lists each command's use of content, channel, since and token.
var fieldsOf = map[string][4]use{
	TypeBroadcast: {required, optional, absent, absent},
	TypeJoin:      {absent, required, optional, absent},
	TypeLeave:     {absent, required, absent, absent},
	TypeRefresh:   {absent, absent, absent, required},
}

func (c *Command) check() error {
	if c.Type == "" {
		return errors.New("a command needs a type")
	}
	uses, ok := fieldsOf[c.Type]
	if !ok {
		return fmt.Errorf("unknown command %.40q", c.Type)
	}
	names := [4]string{"content", "channel", "since", "token"}
	for i, value := range [4]*string{c.Content, c.Channel, c.Since, c.Token} {
		if value == nil && uses[i] == required {
			return fmt.Errorf("%s needs %s", c.Type, names[i])
		}
		if value != nil && uses[i] == absent {
			return fmt.Errorf("%s takes no %s", c.Type, names[i])
		}
	}
	return nil
}
