package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"unicode/utf8"

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
	c, plain := plainCommand(text)
	var err error
	if !plain {
		c = Command{}
		err = decodeStrict(text, &c)
	}
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

// plainCommand reads a command as clients write them, each known field once and a
// string. What is any other, decodeStrict reads, or says what is wrong with it.
func plainCommand(text []byte) (c Command, ok bool) {
	members, ok := jsonobject.Parse(text)
	if !ok {
		return c, false
	}
	var values [4]string // in one piece, for the fields that point to them
	typed := false
	for _, m := range members {
		if m.Escaped {
			return c, false
		}
		if string(m.Name) == "ref" {
			if c.Ref != nil || m.Value[0] == 'n' {
				return c, false
			}
			c.Ref = bytes.Clone(m.Value)
			continue
		}
		if m.Value[0] != '"' {
			return c, false
		}
		if string(m.Name) == "type" {
			if typed {
				return c, false
			}
			c.Type, typed = jsonobject.Text(m.Value), true
			continue
		}
		field, value := (**string)(nil), (*string)(nil)
		switch string(m.Name) {
		case "content":
			field, value = &c.Content, &values[0]
		case "channel":
			field, value = &c.Channel, &values[1]
		case "since":
			field, value = &c.Since, &values[2]
		case "token":
			field, value = &c.Token, &values[3]
		}
		if field == nil || *field != nil {
			return c, false
		}
		*value = jsonobject.Text(m.Value)
		*field = value
	}
	return c, true
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

// DecodeStrict reads exactly one JSON object from r into v, a pointer to a struct
// with a json tag on each field. A field that is unknown (to the letter), given
// twice or null, text that is not UTF-8, anything but an object and anything
// after it are errors. When one field is wrong, v holds the others all the same.
// What r fails with is returned as it is.
func DecodeStrict(r io.Reader, v any) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return decodeStrict(text, v)
}

func decodeStrict(text []byte, v any) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	err := json.Unmarshal(text, v)
	if _, syntax := errors.AsType[*json.SyntaxError](err); syntax {
		dec := json.NewDecoder(bytes.NewReader(text))
		if dec.Decode(new(json.RawMessage)) == nil && dec.InputOffset() < int64(len(text)) {
			return errors.New("something follows the JSON object")
		}
		return errors.New("not a JSON object")
	}
	text = bytes.TrimLeft(text, " \t\r\n")
	if text[0] != '{' {
		return errors.New("not a JSON object")
	}
	if keys := checkKeys(text, fieldNames(v)); keys != nil {
		return keys
	}
	if err != nil {
		return jsonError(err)
	}
	return nil
}

// checkKeys goes over the keys of an object, which is valid JSON. It reads them as
// they are written: one with an escape is none that is known.
func checkKeys(object []byte, known []string) error {
	var given uint64 // a bit for each known name
	depth, key := 0, true
	for i := 0; i < len(object); i++ {
		switch c := object[i]; c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			key = depth == 1
		case '"':
			end := closingQuote(object, i)
			if depth == 1 && key {
				name := string(object[i+1 : end])
				at := slices.Index(known, name)
				switch {
				case at < 0:
					return fmt.Errorf("unknown field %.40q", name)
				case given&(1<<at) != 0:
					return fmt.Errorf("%s is given twice", name)
				}
				given |= 1 << at
				key = false
				if value := bytes.TrimLeft(object[end+1:], " \t\r\n:"); value[0] == 'n' {
					return fmt.Errorf("%s is null", name)
				}
			}
			i = end
		}
	}
	return nil
}

// closingQuote is where the string ends whose first quote is at start.
func closingQuote(text []byte, start int) int {
	for i := start + 1; ; i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
}

var namesOf sync.Map // from a struct's reflect.Type to its fields' names, []string

// fieldNames is the names in the json tags of the struct that v points to.
func fieldNames(v any) []string {
	t := reflect.TypeOf(v).Elem()
	if names, ok := namesOf.Load(t); ok {
		return names.([]string)
	}
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("json")
	}
	namesOf.Store(t, names)
	return names
}

// jsonError says in the protocol's words what encoding/json found, without the
// Go types that it names.
func jsonError(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%.40q has the wrong type: %.40s", t.Field, t.Value)
	}
	return errors.New("not a JSON object")
}
