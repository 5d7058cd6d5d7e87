package apitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/reto10/chat"
	"github.com/reto10/chat/docs"
	"github.com/reto10/chat/test/chatdtest"
)

const (
	openAPIFile  = "openapi.yaml"
	asyncAPIFile = "asyncapi.yaml"
)

// object is of JSON.
type object = map[string]any

// load reads a YAML document as JSON values.
func load(t *testing.T, name string) object {
	t.Helper()
	var doc object
	if err := yaml.Unmarshal(read(t, name), &doc); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	doc = nil
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// read returns a document's text, which is embedded in this binary: so go test does not use a
// cached result when it has changed.
func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := docs.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// at returns the part of a document at a path of keys.
func at(t *testing.T, doc object, keys ...string) object {
	t.Helper()
	for i, key := range keys {
		next, ok := doc[key].(object)
		if !ok {
			t.Fatalf("nothing at %s", strings.Join(keys[:i+1], "/"))
		}
		doc = next
	}
	return doc
}

// strict makes schemas allow only the fields that they name.
func strict(v any) {
	switch v := v.(type) {
	case object:
		if _, isSchema := v["properties"].(object); isSchema && v["type"] == "object" {
			v["additionalProperties"] = false
		}
		for _, part := range v {
			strict(part)
		}
	case []any:
		for _, part := range v {
			strict(part)
		}
	}
}

func TestTheOpenAPIDocumentIsValid(t *testing.T) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(read(t, openAPIFile))
	if err != nil {
		t.Fatal(err)
	}
	// Its examples are checked against their schemas, too.
	if err := doc.Validate(t.Context(), openapi3.EnableSchemaFormatValidation()); err != nil {
		t.Error(err)
	}
	broken := bytes.Replace(read(t, openAPIFile), []byte("token_type: bearer, expires_in: 900"), []byte("token_type: bearer, expires_in: soon"), 1)
	wrong, err := openapi3.NewLoader().LoadFromData(broken)
	if err != nil {
		t.Fatal(err)
	}
	if wrong.Validate(t.Context()) == nil {
		t.Error("an example that is none is let pass")
	}
	operations := make(map[string]bool)
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.OperationID == "" || operations[op.OperationID] || len(op.Tags) != 1 || op.Summary == "" {
				t.Errorf("%s %s: operationId %q, tags %v, summary %q", method, path, op.OperationID, op.Tags, op.Summary)
			}
			operations[op.OperationID] = true
		}
	}
}

func TestTheAsyncAPIDocumentIsValid(t *testing.T) {
	node := chatdtest.Needs(t, "node")
	if _, err := os.Stat("node/node_modules"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no AsyncAPI parser here: make test installs it")
		}
		t.Skip("no AsyncAPI parser here: make test installs it")
	}
	broken := load(t, asyncAPIFile)
	at(t, broken, "operations", "join")["action"] = "listen"
	documents, err := json.Marshal([]object{load(t, asyncAPIFile), broken})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "validate.js")
	cmd.Dir, cmd.Stdin = "node", bytes.NewReader(documents)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("validate.js: %v\n%s", err, errs.String())
	}
	if _, err := os.ReadFile("node/validate.js"); err != nil { // which go test has to look at, too
		t.Fatal(err)
	}
	var found [2][]string
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	for _, finding := range found[0] {
		t.Error(finding)
	}
	if len(found[1]) == 0 {
		t.Error("a broken document is let pass")
	}
}

// What both documents describe is the same in both.
func TestTheDocumentsAgree(t *testing.T) {
	routes := at(t, load(t, openAPIFile), "components", "schemas")
	events := load(t, asyncAPIFile)
	shared := 0
	for name, schema := range at(t, events, "components", "schemas") {
		if other, both := routes[name]; both {
			shared++
			if diff := cmp.Diff(other, schema); diff != "" {
				t.Errorf("%s (-openapi +asyncapi):\n%s", name, diff)
			}
		}
	}
	if shared < 5 {
		t.Errorf("%d schemas in both", shared)
	}
	// A message is one, of the history or of a socket, but for its type.
	message := maps.Clone(at(t, events, "components", "messages", "message", "payload", "properties"))
	delete(message, "type")
	described := func(properties object) map[string]string {
		types := make(map[string]string)
		for name, schema := range properties {
			part := schema.(object)
			types[name] = fmt.Sprint(part["$ref"], part["type"], part["maxLength"])
		}
		return types
	}
	if diff := cmp.Diff(described(at(t, routes, "Message", "properties")), described(message)); diff != "" {
		t.Errorf("message (-openapi +asyncapi):\n%s", diff)
	}
}

// The longest id and the longest names are within the bounds.
func TestTheLongestNamesAreAllowed(t *testing.T) {
	name := strings.Repeat("~", 128)
	e := newEvents(t)
	longest := func() object {
		return object{
			"type": "message", "sender": name, "content": "x", "time": "2026-11-24T03:31:58.926Z", "channel": chat.UserChannel(name),
			"id": chat.FormatID(chat.UserChannel(name), chat.Position{Epoch: strings.Repeat("e", 32), Seq: math.MaxUint64}),
		}
	}
	if err := e.messages["message"].Validate(longest()); err != nil {
		t.Error(err)
	}
	for _, field := range []string{"sender", "channel", "id"} {
		over := longest()
		if over[field] = over[field].(string) + "x"; e.messages["message"].Validate(over) == nil {
			t.Errorf("a longer %s is allowed", field)
		}
	}
}
