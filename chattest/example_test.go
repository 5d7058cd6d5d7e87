package chattest_test

import (
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
)

// t is the argument of a test function: func TestMyRegistry(t *testing.T).
var t *testing.T

// shouting is your own history, which is under test.
type shouting struct{ *chat.MemoryHistory }

func newShouting(limits chat.MemoryLimits) chat.History {
	return shouting{chat.NewMemoryHistory(limits)}
}

// These two tests are enough to start with for your own history. Each part of the suite
// opens it anew, and empty.
func ExampleTestHistory() {
	chattest.TestHistory(t, func(t *testing.T) []chat.History {
		return []chat.History{newShouting(chat.MemoryLimits{Count: 20_000})}
	})
	chattest.TestRetention(t, func(t *testing.T, count int) []chat.History {
		return []chat.History{newShouting(chat.MemoryLimits{Count: count})}
	})
}
