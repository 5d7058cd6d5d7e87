package chattest_test

import (
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
)

// t is what a test function is given: func TestMyRegistry(t *testing.T).
var t *testing.T

// shouting is the history under test: your own.
type shouting struct{ *chat.MemoryHistory }

func newShouting(limits chat.MemoryLimits) chat.History {
	return shouting{chat.NewMemoryHistory(limits)}
}

// Two tests are all that a history of your own needs for a beginning. It is opened
// anew, and empty, for each part of the suite.
func ExampleTestHistory() {
	chattest.TestHistory(t, func(t *testing.T) []chat.History {
		return []chat.History{newShouting(chat.MemoryLimits{Count: 20_000})}
	})
	chattest.TestRetention(t, func(t *testing.T, count int) []chat.History {
		return []chat.History{newShouting(chat.MemoryLimits{Count: count})}
	})
}
