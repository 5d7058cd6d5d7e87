package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Types of the commands a chat.v1 client sends.
const (
	TypeBroadcast = "broadcast"
	TypeJoin      = "join"
	TypeLeave     = "leave"
	TypeRefresh   = "refresh"
)

const maxRef = 128

// Ref is a client's own name for a command: a JSON string or number of at most
// 128 bytes, given back in the answer as it came.
type Ref = json.RawMessage

// Command is what one frame of a chat.v1 client asks for. Which fields stand
// beside Type and Ref depends on Type; ParseCommand refuses any other.
type Command struct {
	Type    string  `json:"type"`
	Ref     Ref     `json:"ref"`
	Content *string `json:"content"` // broadcast
	Channel *string `json:"channel"` // broadcast (optional), join, leave
	Since   *string `json:"since"`   // join (optional)
	Token   *string `json:"token"`   // refresh
}

// ParseCommand reads one frame's text, valid UTF-8. On an error the command holds
// the ref where one could be read, so that the answer can carry it.
func ParseCommand(text []byte) (Command, error) {
	var c Command
	err := DecodeStrict(bytes.NewReader(text), &c)
	if refErr := checkRef(c.Ref); refErr != nil {
		c.Ref = nil
		if err == nil {
			err = refErr
		}
	}
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return Command{Ref: c.Ref}, err
	}
	return c, nil
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

// use says whether a command has a field.
type use int8

const (
	absent use = iota
	optional
	required
)

// fieldsOf lists, for each command, the use of content, channel, since and token.
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

// DecodeStrict reads exactly one JSON object from r into v, a pointer to a struct.
// An unknown field, anything but an object and anything after it are errors. When
// one field is wrong, v holds the others all the same. What r fails with is
// returned as it is.
func DecodeStrict(r io.Reader, v any) error {
	var object json.RawMessage
	dec := json.NewDecoder(r)
	if err := dec.Decode(&object); err != nil {
		return jsonError(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		if err != nil && !notJSON(err) {
			return err
		}
		return errors.New("something follows the JSON object")
	}
	if object[0] != '{' {
		return errors.New("not a JSON object")
	}
	strict := json.NewDecoder(bytes.NewReader(object))
	strict.DisallowUnknownFields()
	if err := strict.Decode(v); err != nil {
		return jsonError(err)
	}
	return nil
}

// notJSON reports whether err is about the text and not of the reader it came
// from.
func notJSON(err error) bool {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	return syntax || err == io.EOF || err == io.ErrUnexpectedEOF
}

// jsonError says in the protocol's words what encoding/json found, without the
// Go types that it names.
func jsonError(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%.40q has the wrong type: %.40s", t.Field, t.Value)
	}
	if notJSON(err) {
		return errors.New("not a JSON object")
	}
	if text, ok := strings.CutPrefix(err.Error(), "json: "); ok {
		return fmt.Errorf("%.80s", text)
	}
	return err
}
