package chattest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// agePatience is how much the clocks of the history and of the test may differ, including
// rounding to milliseconds.
const agePatience = 50 * time.Millisecond

// TestRetentionByAge tests that no read returns a message that is too old, and that each read
// returns the others, while messages are published. It calls open once. open returns an empty
// history that keeps messages for this age, and at least 1,000 of a channel. A message's age
// counts from when it was stored. Message.Time does not matter: a node's clock may be wrong.
func TestRetentionByAge(t *testing.T, open func(t *testing.T, age time.Duration) []chat.History) {
	const age, burst, pause = 2 * time.Second, 400, 100 * time.Millisecond
	a := archive{t, open(t, age)}
	var mu sync.Mutex // guards sent
	sent := make(map[chat.Position]interval)
	publish := func(node int, wrong time.Duration) chat.Position {
		began := time.Now()
		m, err := appendOne(a.Context(), a.at(node), chat.Message{
			Channel: "c", Content: fmt.Sprint(node), Time: began.Add(wrong).UTC().Truncate(time.Millisecond),
		})
		if err != nil {
			t.Errorf("Append: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		sent[m.Position] = interval{began, time.Now()}
		return m.Position
	}
	wrong := []time.Duration{0, time.Hour, -time.Hour} // of the nodes' clocks
	first := publish(0, time.Hour)
	var publishing sync.WaitGroup
	for w := range 8 {
		publishing.Go(func() {
			for i := range burst / 8 {
				publish(w, wrong[i%len(wrong)])
			}
		})
	}
	publishing.Wait()
	over := time.After(age + 5*pause)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n, going := 0, true; going && !t.Failed(); n++ {
		select {
		case <-tick.C:
		case <-over:
			going = false
		}
		publish(n, wrong[n%len(wrong)])
		a.checkAges(n, age, sent)
	}
	if msgs, err := a.at(0).After(t.Context(), "c", first, chat.Limit{Count: 1}); !errors.Is(err, chat.ErrGone) {
		t.Errorf("after the first, when the next messages are too old: %d messages, %v, want ErrGone", len(msgs), err)
	}
	if last := a.last(0, "c"); last.Seq != uint64(len(sent)) {
		t.Errorf("Last = %v of %d messages", last, len(sent))
	}
}

// interval is when a message was stored: between began and ended.
type interval struct{ began, ended time.Time }

// checkAges reads a channel and compares the messages with those that were stored.
func (a archive) checkAges(node int, age time.Duration, sent map[chat.Position]interval) {
	a.Helper()
	kept := make(map[chat.Position]bool)
	began := time.Now()
	var at chat.Position
	for {
		pageBegan := time.Now()
		msgs, err := a.at(node).After(a.Context(), "c", at, chat.Limit{Count: 100})
		if errors.Is(err, chat.ErrGone) && len(msgs) > 0 {
			err = nil // the next messages became too old meanwhile
		}
		if err != nil {
			a.Errorf("After %v: %v", at, err)
		}
		for _, m := range msgs {
			kept[m.Position] = true
			if old := pageBegan.Sub(sent[m.Position].ended); old > age+agePatience {
				a.Errorf("%v is still returned after %v", m.Position, old)
				return
			}
		}
		if len(msgs) == 0 {
			break
		}
		at = msgs[len(msgs)-1].Position
	}
	for p, when := range sent {
		if young := time.Since(when.began); young < age-agePatience && began.After(when.ended) && !kept[p] {
			a.Errorf("%v is not returned after %v", p, young)
			return
		}
	}
}
