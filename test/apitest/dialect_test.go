package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"nhooyr.io/websocket"

	"github.com/reto10/chat/test/chatdtest"
)

// events is docs/asyncapi.yaml, made strict: objects have no other fields than it names.
type events struct {
	doc      object
	messages map[string]*jsonschema.Schema // by their names

	// What was seen: "channel message", and values of enumerations.
	seen, codes, closes map[string]bool
	recovered           map[string]bool // "welcome true"
}

func newEvents(t *testing.T) *events {
	t.Helper()
	doc := load(t, asyncAPIFile)
	strict(doc)
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft7) // AsyncAPI's
	compiler.AssertFormat()
	const url = "file:///asyncapi.json"
	if err := compiler.AddResource(url, doc); err != nil {
		t.Fatal(err)
	}
	e := &events{
		doc: doc, messages: make(map[string]*jsonschema.Schema),
		seen: make(map[string]bool), codes: make(map[string]bool), closes: make(map[string]bool), recovered: make(map[string]bool),
	}
	for name := range at(t, doc, "components", "messages") {
		schema, err := compiler.Compile(url + "#/components/messages/" + name + "/payload")
		if err != nil {
			t.Fatal(err)
		}
		e.messages[name] = schema
	}
	return e
}

// names returns the names of the messages that a part of the document refers to.
func names(refs any) (names []string) {
	for _, ref := range refs.([]any) {
		text := ref.(object)["$ref"].(string)
		names = append(names, text[strings.LastIndex(text, "/")+1:])
	}
	return names
}

// operations returns what is received or sent in a channel, by message.
func (e *events) operations(t *testing.T, channel, action string) (messages []string, replies map[string][]string) {
	t.Helper()
	replies = make(map[string][]string)
	for _, op := range at(t, e.doc, "operations") {
		op := op.(object)
		if op["action"] != action || op["channel"].(object)["$ref"] != "#/channels/"+channel {
			continue
		}
		for _, name := range names(op["messages"]) {
			messages = append(messages, name)
			if reply, ok := op["reply"].(object); ok {
				replies[name] = names(reply["messages"])
			}
		}
	}
	return messages, replies
}

// peer is a client of a channel.
type peer struct {
	t       *testing.T
	events  *events
	channel string
	conn    *websocket.Conn

	received []string // messages that the server receives
	sent     []string // messages that it sends unasked
	replies  map[string][]string
}

// connect opens a socket in one of the dialects and reads the welcome.
func (e *events) connect(t *testing.T, d *chatdtest.Process, channel, token, query string) *peer {
	t.Helper()
	p := e.dial(t, d, channel, token, query)
	welcome := p.next()
	if welcome["type"] != "welcome" {
		t.Fatalf("the first event is %v", welcome)
	}
	if recovered, ok := welcome["recovered"]; ok {
		e.recovered[fmt.Sprint("welcome ", recovered)] = true
	}
	return p
}

func (e *events) dial(t *testing.T, d *chatdtest.Process, channel, token, query string) *peer {
	t.Helper()
	described := at(t, e.doc, "channels", channel)
	var offered []string
	if subprotocol, ok := described["x-subprotocol"].(string); ok {
		offered = []string{subprotocol}
	}
	ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(d.URL, "http")+described["address"].(string)+query,
		&websocket.DialOptions{HTTPClient: d.HTTP, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}, Subprotocols: offered})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	if want := strings.Join(offered, ""); conn.Subprotocol() != want {
		t.Errorf("subprotocol %q, want %q", conn.Subprotocol(), want)
	}
	p := &peer{t: t, events: e, channel: channel, conn: conn}
	p.received, p.replies = e.operations(t, channel, "receive")
	p.sent, _ = e.operations(t, channel, "send")
	return p
}

// within returns a context for one step of a test.
func (p *peer) within() context.Context {
	ctx, cancel := context.WithTimeout(p.t.Context(), chatdtest.Patience)
	p.t.Cleanup(cancel)
	return ctx
}

// match returns the one message of these that a payload is.
func (e *events) match(payload any, among []string) (name string, err error) {
	var found []string
	for _, candidate := range among {
		if wrong := e.messages[candidate].Validate(payload); wrong == nil {
			found = append(found, candidate)
		} else {
			err = wrong
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("it is %v of %v: %w", found, among, err)
	}
	return found[0], nil
}

// payload returns the value of a frame for a schema.
func (p *peer) payload(frame []byte) any {
	if p.channel == "text" {
		return string(frame)
	}
	return decoded(frame)
}

// decoded returns the value of JSON, nil for other text, which is no message.
func decoded(frame []byte) (v any) {
	_ = json.Unmarshal(frame, &v)
	return v
}

// send sends a message that the document allows.
func (p *peer) send(frame string) (message string) {
	p.t.Helper()
	name, err := p.events.match(p.payload([]byte(frame)), p.received)
	if err != nil {
		p.t.Fatalf("sending %s, which the document does not allow: %v", frame, err)
	}
	p.events.seen[p.channel+" "+name] = true
	p.write(websocket.MessageText, frame)
	return name
}

// sendWrong sends a message that the document does not allow.
func (p *peer) sendWrong(frame string) {
	p.t.Helper()
	if name, err := p.events.match(p.payload([]byte(frame)), p.received); err == nil {
		p.t.Errorf("sending %.80s, which the document takes for a %s", frame, name)
	}
	p.write(websocket.MessageText, frame)
}

func (p *peer) write(kind websocket.MessageType, frame string) {
	p.t.Helper()
	if err := p.conn.Write(p.within(), kind, []byte(frame)); err != nil {
		p.t.Fatal(err)
	}
}

// next reads an event, which must be as documented.
func (p *peer) next() object {
	p.t.Helper()
	event, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	return event
}

func (p *peer) read() (object, error) {
	p.t.Helper()
	kind, frame, err := p.conn.Read(p.within())
	if err != nil {
		return nil, err
	}
	event, ok := decoded(frame).(object)
	if !ok || kind != websocket.MessageText {
		p.t.Fatalf("%v frame %s", kind, frame)
	}
	if event["type"] == "ack" || event["type"] == "error" {
		return event, nil // for answer to look at
	}
	name, err := p.events.match(event, p.sent)
	if err != nil {
		p.t.Errorf("%s: %v", frame, err)
	}
	p.events.seen[p.channel+" "+name] = true
	return event, nil
}

// answer reads until the answer to a message, which must be one of the documented ones.
func (p *peer) answer(message string, isIt func(object) bool) object {
	p.t.Helper()
	for {
		event := p.next()
		if !isIt(event) {
			continue
		}
		name, err := p.events.match(event, p.replies[message])
		if err != nil {
			p.t.Errorf("answer to %s: %v: %v", message, event, err)
		}
		p.events.seen[p.channel+" "+name] = true
		if code, ok := event["code"].(string); ok {
			p.events.codes[code] = true
		}
		if recovered, ok := event["recovered"]; ok {
			p.events.recovered[fmt.Sprint("joinAck ", recovered)] = true
		}
		return event
	}
}

// isAnswer reports whether an event is the acknowledgement or the error with this ref.
func isAnswer(ref any) func(object) bool {
	return func(event object) bool {
		return (event["type"] == "ack" || event["type"] == "error") && event["ref"] == ref
	}
}

func isError(event object) bool { return event["type"] == "error" }

// until reads until an event of this type.
func (p *peer) until(kind string) object {
	p.t.Helper()
	for {
		if event := p.next(); event["type"] == kind {
			return event
		}
	}
}

// hears reads until a user's join or leave, of a channel or, with nil, of the service.
func (p *peer) hears(kind, username string, channel any) {
	p.t.Helper()
	for {
		if event := p.until(kind); event["username"] == username && event["channel"] == channel {
			return
		}
	}
}

// closed reads until the end, which must have this code.
func (p *peer) closed(code int) {
	p.t.Helper()
	for {
		_, err := p.read()
		if err == nil {
			continue
		}
		if got := int(websocket.CloseStatus(err)); got != code {
			p.t.Errorf("closed with %d (%v), want %d", got, err, code)
		}
		p.events.closes[fmt.Sprint(code)] = true
		return
	}
}

// unseen returns what is documented and was not seen.
func (e *events) unseen(t *testing.T) (missing []string) {
	t.Helper()
	look := func(what string, documented []string, seen map[string]bool) {
		for _, name := range documented {
			if !seen[name] {
				missing = append(missing, what+" "+name)
			}
		}
		for name := range seen {
			if !slices.Contains(documented, name) {
				t.Errorf("%s %s is not documented", what, name)
			}
		}
	}
	var messages []string
	for channel, described := range at(t, e.doc, "channels") {
		for name := range described.(object)["messages"].(object) {
			messages = append(messages, channel+" "+name)
		}
	}
	var codes []string
	for _, code := range at(t, e.doc, "components", "messages", "error", "payload", "properties", "code")["enum"].([]any) {
		codes = append(codes, code.(string))
	}
	look("message", messages, e.seen)
	look("error", codes, e.codes)
	look("close code", slices.Collect(maps.Keys(at(t, e.doc, "x-close-codes"))), e.closes)
	look("recovered of", []string{"welcome true", "welcome false", "joinAck true", "joinAck false"}, e.recovered)
	slices.Sort(missing)
	return missing
}
