package wstest

import (
	"testing"
	"time"
)

// Patience is how long a test waits for something that has to happen.
const Patience = time.Minute

// Eventually waits for a condition that other goroutines or processes bring about.
// It fails the test when the condition is not true within Patience.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	const longest = 20 * time.Millisecond // between two looks
	pause := time.Millisecond
	look := time.NewTimer(pause)
	defer look.Stop()
	overdue := time.After(Patience)
	for !cond() {
		select {
		case <-look.C:
			pause = min(2*pause, longest)
			look.Reset(pause)
		case <-overdue:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
