package throttle_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/throttle"
)

func TestAMeterDelaysWhoHasUsedTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := throttle.NewMeter(100, 200)
		steps := []struct {
			name   string
			after  time.Duration
			amount int
			delay  time.Duration // behind it
		}{
			{"some of the burst", 0, 150, 0},
			{"the rest of it", 0, 50, 0},
			{"more", 0, 10, 100 * time.Millisecond},
			{"in debt", 0, 100, 1100 * time.Millisecond},
			{"when that is half paid", 500 * time.Millisecond, 0, 600 * time.Millisecond},
			{"when it is paid", 600 * time.Millisecond, 1, 10 * time.Millisecond},
			{"when the burst is there again", time.Hour, 200, 0},
		}
		for _, s := range steps {
			if s.after > 0 {
				<-time.After(s.after)
			}
			m.Use("ana", s.amount)
			if diff := cmp.Diff(s.delay, m.Delay("ana")); diff != "" {
				t.Errorf("%s: delay (-want +got):\n%s", s.name, diff)
			}
			if d := m.Delay("bob"); d > 0 {
				t.Errorf("%s: bob waits %v", s.name, d)
			}
		}
	})
}

func TestAMeterForgetsWhoHasPaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := throttle.NewMeter(100, 200)
		m.Use("ana", 1000)
		for i := range 100_000 {
			m.Use(fmt.Sprint(i), 1)
			<-time.After(time.Millisecond)
		}
		if n := m.Keys(); n > 2048 {
			t.Errorf("%d keys are kept", n)
		}
		m.Use("ana", 1_000_000)
		for i := range 10_000 {
			m.Use(fmt.Sprint(i), 1)
		}
		if m.Delay("ana") == 0 {
			t.Error("ana's debt is forgotten")
		}
	})
}
