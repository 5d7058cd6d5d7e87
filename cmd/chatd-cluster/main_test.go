package main

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

// asProgram makes the test binary run as chatd-cluster, so that the tests start the program
// with the race detector.
const asProgram = "TEST_BINARY_IS_CHATD_CLUSTER"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	_ = flag.Set("test.parallel", "4") // tests wait for processes more than they compute
	leak.Main(m)
}

func program(t *testing.T) chatdtest.Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return chatdtest.Program{Path: self, Env: []string{asProgram + "=1"}}
}

// post publishes a message with POST /messages and returns the message in the answer.
func post(t *testing.T, d *chatdtest.Process, token, content string) wstest.Event {
	t.Helper()
	body, err := json.Marshal(map[string]string{"content": content})
	if err != nil {
		t.Fatal(err)
	}
	status, answer := d.Request(http.MethodPost, "/messages", token, string(body))
	if status != http.StatusCreated {
		t.Fatalf("posting: status %d: %s", status, answer)
	}
	return decode[wstest.Event](t, answer)
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// within returns a context that ends when the test's patience does.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
	t.Cleanup(cancel)
	return ctx
}
