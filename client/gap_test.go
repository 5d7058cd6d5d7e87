package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

// reading is middleware that calls a function before GET /messages. The function reports
// whether it has written the answer.
type reading struct {
	do atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
}

func (m *reading) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := m.do.Load(); f != nil && r.URL.Path == "/messages" && (*f)(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (m *reading) set(f func(w http.ResponseWriter, r *http.Request) bool) { m.do.Store(&f) }

func keep(n int) chat.Option {
	return chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: n}))
}

// missing makes a client miss more messages than the history keeps, and returns once it has
// reconnected.
func missing(t *testing.T, s *server, p *proxy, f *feed) {
	t.Helper()
	s.publish("", "the first")
	f.texts(1)
	p.to("")
	p.cut()
	want[client.Lost](f)
	s.publish("", numbered("", 10)...)
	p.to(s.addr)
}

func TestAHistoryThatCannotBeReadLeavesTheGap(t *testing.T) {
	for name, status := range map[string]int{"unavailable": 503, "not there": 404, "too fast": 429} {
		t.Run(name, func(t *testing.T) {
			var m reading
			var asked atomic.Int32
			s := serveWith(t, m.around, keep(3))
			m.set(func(w http.ResponseWriter, r *http.Request) bool {
				if asked.Add(1) == 1 {
					s.publish("", "live")
				}
				w.WriteHeader(status)
				return true
			})
			p := through(t, s)
			f := follow(t, s.dial("ana"))
			missing(t, s, p, f)
			want[client.Gap](f)
			if got := f.texts(1); got[0] != "live" {
				t.Errorf("got %q", got)
			}
			if n := asked.Load(); n != map[int]int32{503: 3, 404: 1, 429: 3}[status] {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// Messages that were published live while the history is read are in it, too.
func TestWhatComesLiveIsNotTakenFromTheHistory(t *testing.T) {
	tests := []struct {
		name            string
		kept, meanwhile int
		restart         bool // with nothing in the history of the new one
	}{
		{"all that is kept is live", 3, 10, false},
		{"so is the first page of it", 5000, 1500, true},
		{"all on one page is live", 5000, 500, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m reading
			var asked atomic.Int32
			s := serveWith(t, m.around, keep(tt.kept))
			p := through(t, s)
			c := s.dial("ana")
			f := follow(t, c)
			if tt.restart {
				s.publish("", "the first")
				f.texts(1)
				s = serveWith(t, m.around, keep(tt.kept))
			}
			live := numbered("live ", tt.meanwhile)
			m.set(func(_ http.ResponseWriter, r *http.Request) bool {
				if asked.Add(1) == 1 {
					s.publish("", live...)
				}
				return false
			})
			if tt.restart {
				p.to(s.addr)
				p.cut()
			} else {
				missing(t, s, p, f)
			}
			want[client.Gap](f)
			if tt.restart {
				want[client.Gap](f) // her own
			}
			if diff := cmp.Diff(live, f.texts(len(live))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			s.publish("", "the last")
			if got := f.texts(1); got[0] != "the last" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// Each gap is reported, however small the queue is.
func TestATinyLimitKeepsNoGapBack(t *testing.T) {
	s := serve(t)
	p := through(t, s)
	channels := numbered("c", 20)
	c := s.dial("ana", client.WithChannels(channels...), client.WithEventLimit(1, 1))
	f := follow(t, c)
	want[client.Welcome](f)
	for _, channel := range channels {
		s.publish(channel, "hi")
		f.texts(1)
	}
	again := serve(t)
	p.to(again.addr)
	p.cut()
	for _, channel := range append([]string{"", "@ana"}, channels...) {
		if got := want[client.Gap](f); got.Channel != channel {
			t.Errorf("got %+v, want one of %q", got, channel)
		}
	}
	again.publish("c20", "live")
	if got := f.texts(1); got[0] != "live" {
		t.Errorf("got %q", got)
	}
}

// If the filling of a gap fails in the middle, the rest is another gap.
func TestAHistoryThatBreaksOffLeavesAnotherGap(t *testing.T) {
	var m reading
	var asked atomic.Int32
	s := serveWith(t, m.around, keep(1500))
	m.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("before") || asked.Add(1) == 1 {
			return false
		}
		w.WriteHeader(404)
		return true
	})
	p := through(t, s)
	f := follow(t, s.dial("ana"))
	s.publish("", "the first")
	f.texts(1)
	p.to("")
	p.cut()
	want[client.Lost](f)
	s.publish("", numbered("", 3000)...)
	p.to(s.addr)
	want[client.Gap](f)
	got := f.texts(1000)
	if diff := cmp.Diff(numbered("", 2500)[1500:], got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	want[client.Gap](f)
	s.publish("", "live")
	if got := f.texts(1); got[0] != "live" {
		t.Errorf("got %q", got)
	}
}

// A connection that ends while the history is read neither stops the reading nor causes
// another gap.
func TestAGapIsToldOnceAndFilledByTheNextConnection(t *testing.T) {
	var m reading
	var asked atomic.Int32
	s := serveWith(t, m.around, keep(3))
	p := through(t, s)
	m.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if asked.Add(1) > 1 {
			return false
		}
		p.cut()
		<-r.Context().Done()
		return true
	})
	f := follow(t, s.dial("ana"))
	missing(t, s, p, f)
	want[client.Gap](f)
	if diff := cmp.Diff([]string{"8", "9", "10"}, f.texts(3)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	s.publish("", "live")
	if got := f.texts(1); got[0] != "live" {
		t.Errorf("got %q", got)
	}
}

// Live messages that arrive while a gap is filled are bounded, too. The client drops those
// above the bound and reads them later.
func TestWhatIsHeldBehindAGapIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m reading
		s := servePipes(t, m.around, chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 50})))
		c := dialPipes(t, s, client.WithToken(tokenFor(t, "ana", 24*time.Hour)), client.WithEventLimit(5, 1<<20))
		var asked atomic.Int32
		m.set(func(_ http.ResponseWriter, r *http.Request) bool {
			if asked.Add(1) == 1 {
				s.publish("", numbered("live ", 20)...)
				select {
				case <-time.After(20 * time.Second):
				case <-r.Context().Done():
				}
			}
			return false
		})
		var got []string
		gaps, behind := 0, 0
		s.publish("", "the first")
		for event, err := range c.Events(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			switch e := event.(type) {
			case client.Message:
				if e.Content == "the first" {
					s.pipes.cut()
					s.publish("", numbered("", 80)...)
					continue
				}
				got = append(got, e.Content)
			case client.Gap:
				gaps++
			case client.Lost:
				if errors.Is(e.Err, client.ErrBehind) {
					behind++
				}
			}
			if len(got) == 50 {
				break
			}
		}
		want := append(numbered("", 80)[50:], numbered("live ", 20)...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		if gaps != 1 || behind == 0 {
			t.Errorf("%d gaps, %d times behind", gaps, behind)
		}
	})
}

// No message is lost if the connection ends while a gap is being filled.
func TestAGapThatIsBeingFilledWhenTheConnectionEndsIsFilledByTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t, nil, keep(50))
		c := dialPipes(t, s, client.WithToken(tokenFor(t, "ana", 24*time.Hour)), client.WithEventLimit(5, 1<<20))
		var got []string
		gaps := 0
		s.publish("", "the first")
		for event, err := range c.Events(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			switch e := event.(type) {
			case client.Message:
				if e.Content == "the first" {
					s.pipes.cut()
					s.publish("", numbered("", 80)...)
					continue
				}
				if got = append(got, e.Content); len(got) == 10 {
					s.pipes.cut()
					synctest.Wait()
					s.publish("", "live")
				}
			case client.Gap:
				gaps++
			}
			if len(got) > 0 && got[len(got)-1] == "live" {
				break
			}
		}
		if diff := cmp.Diff(append(numbered("", 80)[30:], "live"), got); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		if gaps != 1 {
			t.Errorf("%d gaps", gaps)
		}
	})
}

// All channels with a gap share one bound.
func TestWhatIsHeldBehindManyGapsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const channels, each = 20, 4
		var m reading
		s := servePipes(t, m.around, keep(each))
		var names []string
		for i := range channels {
			names = append(names, fmt.Sprint("c", i))
		}
		c := dialPipes(t, s, client.WithToken(tokenFor(t, "ana", 24*time.Hour)), client.WithChannels(names...), client.WithEventLimit(5, 1<<20))
		var asked atomic.Int32
		m.set(func(_ http.ResponseWriter, r *http.Request) bool {
			if asked.Add(1) == 1 {
				for _, name := range names {
					s.publish(name, numbered(name+" live ", each)...)
				}
				select {
				case <-time.After(20 * time.Second):
				case <-r.Context().Done():
				}
			}
			return false
		})
		s.pipes.cut()
		for _, name := range names {
			s.publish(name, numbered("missed", each+1)...)
		}
		got := map[string][]string{}
		behind, live := 0, 0
		for event, err := range c.Events(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			switch e := event.(type) {
			case client.Message:
				if strings.Contains(e.Content, "live") {
					got[e.Channel] = append(got[e.Channel], e.Content)
					live++
				}
			case client.Lost:
				if errors.Is(e.Err, client.ErrBehind) {
					behind++
				}
			}
			if live == channels*each {
				break
			}
		}
		for _, name := range names {
			if diff := cmp.Diff(numbered(name+" live ", each), got[name]); diff != "" {
				t.Errorf("messages of %s (-want +got):\n%s", name, diff)
			}
		}
		if behind == 0 {
			t.Errorf("it held %d messages", channels*each)
		}
	})
}
