package chattest_test

import (
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
)

// A registry is tested with the history that its services would have. One that
// spans nodes is opened several times for one test, all on one backend.
func ExampleTestRegistry() {
	chattest.TestRegistry(t, func(t *testing.T) []chattest.Node {
		registry := struct{ *chat.MemoryRegistry }{chat.NewMemoryRegistry()} // your own
		return []chattest.Node{{
			Registry: registry,
			History:  chat.NewMemoryHistory(chat.MemoryLimits{Count: 20_000}),
		}}
	})
}
