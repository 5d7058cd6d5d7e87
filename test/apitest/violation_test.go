package apitest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"testing"
)

// renamed returns copies of an object. In each, one field at any depth has another name.
func renamed(original object) map[string]object {
	copies := make(map[string]object)
	for name, value := range original {
		with := func(name string, value any) object {
			c := maps.Clone(original)
			delete(c, name)
			c[name] = value
			return c
		}
		other := with(name+"_", value)
		delete(other, name)
		copies[name] = other
		switch value := value.(type) {
		case object:
			for inner, c := range renamed(value) {
				copies[name+"."+inner] = with(name, c)
			}
		case []any:
			for i, part := range value {
				part, ok := part.(object)
				if !ok {
					continue
				}
				for inner, c := range renamed(part) {
					list := slices.Clone(value)
					list[i] = c
					copies[name+"[]."+inner] = with(name, list)
				}
			}
		}
	}
	return copies
}

// A real answer with one change is no longer as documented.
func TestAChangedAnswerIsFound(t *testing.T) {
	c := newContract(t)
	d := chatd.Start(t, nil)
	admin := d.Token("admin")
	c.want(t, d, request{method: "GET", path: "/ws/chat", token: admin, header: handshake()}, 101)
	c.want(t, d, request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"x","channel":"ops"}`}, 201)
	for _, r := range []request{
		{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin","password":"correct horse"}`},
		{method: "GET", path: "/users/connected", token: admin},
		{method: "POST", path: "/users/user/disconnect", token: admin},
		{method: "GET", path: "/messages?channel=ops&after=1-lost-ops", token: admin},
		{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"x","channel":"ops"}`},
		{method: "GET", path: "/users/connected"},
	} {
		real, _ := c.do(t, d.HTTP, d.URL, r)
		findings := func(change string, a answer) {
			t.Helper()
			input, err := c.input(r.build(t, d.URL))
			if err != nil {
				t.Fatal(err)
			}
			if c.check(input, a) == nil {
				t.Errorf("%s %s: not found: %s", r.method, r.path, change)
			}
		}
		fields, ok := decoded(real.body).(object)
		if !ok {
			t.Fatalf("%s %s: %s", r.method, r.path, real.body)
		}
		for name, other := range renamed(fields) {
			body, err := json.Marshal(other)
			if err != nil {
				t.Fatal(err)
			}
			findings("a renamed "+name, answer{real.status, real.header, body})
		}
		findings("another status", answer{http.StatusTeapot, real.header, real.body})
		for _, name := range []string{"Content-Type", "Cache-Control", "Vary", "Www-Authenticate"} {
			if real.header.Get(name) != "" {
				without := real.header.Clone()
				without.Del(name)
				findings("no "+name, answer{real.status, without, real.body})
			}
		}
		more := real.header.Clone()
		more.Set("X-Powered-By", "chatd")
		findings("one more header", answer{real.status, more, real.body})
	}
}

// A message's example is one, and with a renamed field it is none.
func TestAChangedMessageIsFound(t *testing.T) {
	e := newEvents(t)
	for name, message := range at(t, e.doc, "components", "messages") {
		examples, _ := message.(object)["examples"].([]any)
		if len(examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		for _, example := range examples {
			payload := example.(object)["payload"]
			if err := e.messages[name].Validate(payload); err != nil {
				t.Errorf("the example of %s: %v", name, err)
			}
			fields, _ := payload.(object)
			for field, other := range renamed(fields) {
				if e.messages[name].Validate(other) == nil {
					t.Errorf("%s: not found: a renamed %s", name, field)
				}
			}
		}
	}
}

// The client checks real events in the same way.
func TestAnEventOfAnotherKindIsFound(t *testing.T) {
	e := newEvents(t)
	d := chatd.Start(t, nil)
	p := e.dial(t, d, "commands", d.Token("user"), "")
	_, frame, err := p.conn.Read(p.within())
	if err != nil {
		t.Fatal(err)
	}
	welcome, _ := decoded(frame).(object)
	if _, err := e.match(welcome, p.sent); err != nil {
		t.Fatal(err)
	}
	for field, other := range renamed(welcome) {
		if name, err := e.match(other, p.sent); err == nil {
			t.Errorf("with a renamed %s it is taken for a %s", field, name)
		}
	}
	if name, err := e.match(welcome, p.received); err == nil {
		t.Errorf("a client could send it as %s", name)
	}
}
