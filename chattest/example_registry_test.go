package chattest_test

import (
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
)

// Test a registry with the history that its services use. For a registry that spans nodes,
// open several nodes on one backend.
func ExampleTestRegistry() {
	chattest.TestRegistry(t, func(t *testing.T) []chattest.Node {
		registry := struct{ *chat.MemoryRegistry }{chat.NewMemoryRegistry()} // your own
		return []chattest.Node{{
			Registry: registry,
			History:  chat.NewMemoryHistory(chat.MemoryLimits{Count: 20_000}),
		}}
	})
}
