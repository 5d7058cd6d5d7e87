package client_test

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

// keepAll is a history that keeps all messages of a test.
func keepAll() chat.Option {
	return chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 100_000, Bytes: 1 << 30}))
}

// A loop that broadcasts while many events wait for it gets its acks, and then all events.
func TestALoopThatIsBehindCanBroadcast(t *testing.T) {
	const many, said = 3000, 6
	s := serve(t, keepAll())
	c := s.dial("admin", client.WithEventLimit(50, 1<<20))
	expected := numbered("", many)
	s.publish("", expected...)
	var got []string
	behind := 0
	for event, err := range c.Events(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		switch e := event.(type) {
		case client.Message:
			got = append(got, e.Content)
			if len(got)%(many/said) == 1 && len(expected) < many+said {
				if _, err := c.Broadcast(within(t), "from the loop"); err != nil {
					t.Fatal(err)
				}
				expected = append(expected, "from the loop")
			}
		case client.Lost:
			if !errors.Is(e.Err, client.ErrBehind) {
				t.Errorf("got %+v", e)
			}
			behind++
		case client.Gap:
			t.Errorf("got %+v", e)
		}
		if len(got) == many+said {
			break
		}
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if behind == 0 {
		t.Error("it was never behind")
	}
}

// A client whose consumer reads nothing can still broadcast, and its queue stays bounded.
func TestWithoutALoopNothingGrows(t *testing.T) {
	const size, many = 8 << 10, 400
	s := serve(t, chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 10})))
	c := s.dial("admin", client.WithEventLimit(1000, 128<<10))
	content := strings.Repeat("x", size)
	broadcast := func(n int) {
		for range n {
			if _, err := c.Broadcast(within(t), content); err != nil {
				t.Fatal(err)
			}
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	broadcast(30) // past the limit
	before := heap()
	broadcast(many)
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("%d bytes more after %d", grown, many*size)
	}
	// A loop that starts now receives the events that waited, then the gap, then
	// the newer events.
	gaps, last := 0, ""
	for event, err := range c.Events(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		switch e := event.(type) {
		case client.Gap:
			gaps++
			if e.After != last {
				t.Errorf("got %+v behind %s", e, last)
			}
			s.publish("", "the end")
		case client.Message:
			last = e.ID
		}
		if m, ok := event.(client.Message); ok && m.Content == "the end" {
			break
		}
	}
	if gaps != 1 {
		t.Errorf("%d gaps", gaps)
	}
}

// A consumer that stops for long, and sends nothing, loses no message.
func TestALoopThatStopsForLongLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t, nil, keepAll())
		c := dialPipes(t, s, client.WithToken(tokenFor(t, "ana", 24*time.Hour)), client.WithEventLimit(10, 1<<20))
		const rounds, each = 20, 30
		expected := numbered("", rounds*each)
		var publishing sync.WaitGroup
		defer publishing.Wait()
		publishing.Go(func() {
			for i := range rounds {
				s.publish("", expected[i*each:(i+1)*each]...)
				<-time.After(time.Minute)
			}
		})
		var got []string
		for event, err := range c.Events(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			switch e := event.(type) {
			case client.Message:
				if got = append(got, e.Content); len(got)%100 == 1 {
					<-time.After(3 * time.Minute)
				}
			case client.Gap:
				t.Errorf("got %+v", e)
			}
			if len(got) == len(expected) {
				break
			}
		}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
	})
}
