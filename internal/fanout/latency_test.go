package fanout_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/latency"
)

// slow is a receiver that takes its time.
type slow time.Duration

func (s slow) Receive(fanout.Batch) { <-time.After(time.Duration(s)) }

func TestAFrameTakesUntilTheLastMemberOfAShardHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := fanout.NewHub(2)
		var g, nobodys fanout.Group
		for range 3 { // two in one shard, one in the other
			add(h, slow(10*time.Millisecond)).Join(&g)
		}
		f := frame("measured")
		f.Offered = latency.Now()
		<-time.After(5 * time.Millisecond) // on its way to the hub
		g.Publish(f)
		g.Publish(frame("not measured"))
		nobodys.Publish(f)
		flush(t, h)
		s := h.Latency().Read()
		if want := 25*time.Millisecond + 15*time.Millisecond; s.Count != 2 || s.Sum != want {
			t.Errorf("%d observations of %v in all, want 2 of %v", s.Count, s.Sum, want)
		}
	})
}

func TestMeasuringAllocatesNothing(t *testing.T) {
	h, g := hubOf(100)
	f := fanout.Frame{Bytes: make([]byte, 192)}
	allocs := func() float64 {
		return testing.AllocsPerRun(200, func() {
			g.Publish(f)
			flush(t, h)
		})
	}
	without := allocs()
	f.Offered = latency.Now()
	if with := allocs(); with > without+1 { // what else there is depends on the scheduler
		t.Errorf("%v allocations for a frame that is measured, %v for one that is not", with, without)
	}
}
