package connset_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/connset"
	"github.com/reto10/chat/test/leak"
)

const grace = 100 * time.Millisecond

func TestMain(m *testing.M) { leak.Main(m) }

const heartbeat = 16 * time.Second

// socket notes when it was asked for a sign of life and when it was killed, since
// the bubble's beginning.
type socket struct {
	began time.Time
	leave func() // what its owner does when it ends

	mu     sync.Mutex
	beats  []time.Duration
	killed []time.Duration
}

func (s *socket) Beat(time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats = append(s.beats, time.Since(s.began))
}

func (s *socket) Kill() {
	s.mu.Lock()
	s.killed = append(s.killed, time.Since(s.began))
	s.mu.Unlock()
	if s.leave != nil {
		s.leave()
	}
}

// enter reserves a place and puts a socket on it; leave takes it off.
func enter(t *testing.T, r *connset.Set[*socket]) *socket {
	t.Helper()
	if err := r.Reserve(); err != nil {
		t.Fatal(err)
	}
	s := &socket{began: time.Now()}
	part := r.Add(s)
	s.leave = func() { r.Remove(s, part); r.Release() }
	return s
}

func drain(t *testing.T, r *connset.Set[*socket]) {
	t.Helper()
	if err := r.Drain(t.Context(), func(s *socket) { s.leave() }); err != nil {
		t.Error(err)
	}
}

func TestASetTakesSoManyAndNoMore(t *testing.T) {
	r := connset.New[*socket](2, heartbeat, grace)
	first := enter(t, r)
	if err := r.Reserve(); err != nil { // accepted, not yet live
		t.Fatal(err)
	}
	if err := r.Reserve(); !errors.Is(err, connset.ErrFull) {
		t.Errorf("Reserve = %v, want ErrFull", err)
	}
	if got := r.Count(); got != 2 {
		t.Errorf("Count = %d, want 2", got)
	}
	r.Release()
	if got := r.Count(); got != 1 {
		t.Errorf("Count = %d, want 1", got)
	}
	enter(t, r)
	first.leave()
	if r.Draining() {
		t.Error("draining before Drain")
	}
	drain(t, r)
	if !r.Draining() {
		t.Error("not draining after Drain")
	}
	if err := r.Reserve(); !errors.Is(err, connset.ErrDraining) {
		t.Errorf("Reserve = %v, want ErrDraining", err)
	}
	if got := r.Count(); got != 0 {
		t.Errorf("Count = %d, want 0", got)
	}
	drain(t, r) // again: nothing to do
}

func TestManyComeAndGoAtOnce(t *testing.T) {
	const most = 8
	r := connset.New[*socket](most, heartbeat, grace)
	var work sync.WaitGroup
	for range 4 * most {
		work.Go(func() {
			for range 200 {
				if err := r.Reserve(); err != nil {
					continue
				}
				if got := r.Count(); got > most {
					t.Errorf("Count = %d, want at most %d", got, most)
				}
				s := new(socket)
				part := r.Add(s)
				r.Remove(s, part)
				r.Release()
			}
		})
	}
	work.Wait()
	if got := r.Count(); got != 0 {
		t.Errorf("Count = %d, want 0", got)
	}
	drain(t, r)
}

func TestEverySocketIsAskedOnceAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connset.New[*socket](1000, heartbeat, grace)
		var sockets []*socket
		for range 100 {
			sockets = append(sockets, enter(t, r))
		}
		gone := sockets[99]
		gone.leave()
		sockets = sockets[:99]
		<-time.After(5*heartbeat + time.Second/2)
		synctest.Wait()

		atOnce := make(map[time.Duration]int)
		for i, s := range sockets {
			if len(s.beats) != 5 {
				t.Fatalf("socket %d was asked %d times in 5 heartbeats", i, len(s.beats))
			}
			for n := 1; n < 5; n++ {
				if d := s.beats[n] - s.beats[n-1]; d != heartbeat {
					t.Fatalf("socket %d was asked after %v, want %v", i, d, heartbeat)
				}
			}
			atOnce[s.beats[0]]++
		}
		for when, n := range atOnce {
			if n > 7 {
				t.Errorf("%d of 99 sockets were asked at once, at %v", n, when)
			}
		}
		if len(gone.beats) > 0 {
			t.Error("a socket that left was asked")
		}
		drain(t, r)
	})
}

func TestDrainingIsSpread(t *testing.T) {
	tests := []struct {
		name    string
		sockets int
		within  time.Duration // 0: no deadline
		slow    time.Duration // what telling one takes
		from    time.Duration // the last one is told between
		to      time.Duration
	}{
		{"few", 3, time.Minute, 0, 100 * time.Millisecond, 100 * time.Millisecond},
		{"many", 1000, 10 * time.Second, 0, 7 * time.Second, 8 * time.Second},
		{"more than there are moments", 20_000, 10 * time.Second, 0, 7 * time.Second, 8 * time.Second},
		{"no deadline", 1000, 0, 0, 4 * time.Second, 5 * time.Second},
		{"telling takes time", 1000, 10 * time.Second, 5 * time.Millisecond, 7 * time.Second, 8 * time.Second},
		{"none", 0, time.Minute, 0, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := connset.New[*socket](100_000, heartbeat, grace)
				for range tt.sockets {
					enter(t, r)
				}
				ctx := t.Context()
				if tt.within > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.within)
					defer cancel()
				}
				began := time.Now()
				var told []time.Duration
				err := r.Drain(ctx, func(s *socket) {
					told = append(told, time.Since(began))
					<-time.After(tt.slow)
					s.leave()
				})
				if err != nil {
					t.Fatal(err)
				}
				if len(told) != tt.sockets {
					t.Fatalf("%d of %d were told to go", len(told), tt.sockets)
				}
				if tt.sockets == 0 {
					return
				}
				if last := told[len(told)-1]; last < tt.from || last > tt.to {
					t.Errorf("the last was told after %v, want between %v and %v", last, tt.from, tt.to)
				}
				if half := told[len(told)/2]; tt.sockets > 10 && (half < tt.from*4/10 || half > tt.to*6/10) {
					t.Errorf("half were told after %v of %v", half, told[len(told)-1])
				}
			})
		})
	}
}

func TestDrainingWaitsForWhoIsStillComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connset.New[*socket](10, heartbeat, grace)
		enter(t, r)
		if err := r.Reserve(); err != nil {
			t.Fatal(err)
		}
		go func() { // its handshake takes a while
			<-time.After(3 * time.Second)
			leave := make(chan struct{})
			s := &socket{leave: func() { close(leave) }}
			part := r.Add(s)
			<-leave
			r.Remove(s, part)
			r.Release()
		}()
		told := 0
		began := time.Now()
		if err := r.Drain(t.Context(), func(s *socket) { told++; s.leave() }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); told != 2 || took < 3*time.Second || took > 4*time.Second {
			t.Errorf("%d were told within %v, want 2 in little more than 3 s", told, took)
		}
	})
}

func TestEachIsToldToGoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connset.New[*socket](10, heartbeat, grace)
		a, b := enter(t, r), enter(t, r)
		told := make(map[*socket]int)
		err := r.Drain(t.Context(), func(s *socket) {
			told[s]++
			time.AfterFunc(10*time.Second, s.leave) // long after
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{1, 1}, []int{told[a], told[b]}); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestWhoDoesNotGoInTimeIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connset.New[*socket](10, heartbeat, grace)
		a, b := enter(t, r), enter(t, r)
		if err := r.Reserve(); err != nil { // for the one that comes too late
			t.Fatal(err)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := r.Drain(ctx, func(s *socket) {
			if s == a {
				s.leave()
			}
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain = %v, want the deadline", err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("Drain took %v, want 10 s", took)
		}
		if len(a.killed) != 0 || !slices.Equal(b.killed, []time.Duration{10 * time.Second}) {
			t.Errorf("killed after %v and %v, want only the second, after 10 s", a.killed, b.killed)
		}

		late := &socket{began: began}
		part := r.Add(late)
		if len(late.killed) != 1 {
			t.Error("a socket that came after the end was let live")
		}
		r.Remove(late, part)
		r.Release()
		if got := r.Count(); got != 0 {
			t.Errorf("Count = %d, want 0", got)
		}
		synctest.Wait()
	})
}

func TestDrainingWithoutTimeKillsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connset.New[*socket](10, heartbeat, grace)
		s := enter(t, r)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Drain(ctx, func(*socket) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("Drain = %v, want canceled", err)
		}
		if len(s.killed) != 1 {
			t.Errorf("killed %d times, want once", len(s.killed))
		}
	})
}

func TestNobodyIsAskedAfterDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connset.New[*socket](10, heartbeat, grace)
		s := enter(t, r)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.leave = nil // it does not go, not even killed
		_ = r.Drain(ctx, func(*socket) {})
		<-time.After(10 * heartbeat)
		if len(s.beats) > 0 {
			t.Errorf("asked after %v", s.beats)
		}
		r.Release()
	})
}
