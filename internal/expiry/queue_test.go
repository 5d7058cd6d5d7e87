package expiry_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/expiry"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// thing remembers when it expired.
type thing struct {
	slot expiry.Slot
	name string
	log  *log
}

func (t *thing) Slot() *expiry.Slot { return &t.slot }
func (t *thing) Expire()            { t.log.note(t.name) }

// in returns the time after d.
func in(d time.Duration) time.Time { return time.Now().Add(d) }

type log struct {
	mu    sync.Mutex
	begin time.Time
	lines []string
}

func (l *log) note(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, time.Since(l.begin).String()+" "+name)
}

func TestThingsExpireAtTheirTimes(t *testing.T) {
	tests := []struct {
		name string
		do   func(q *expiry.Queue[*thing], a, b, c *thing)
		want []string
	}{
		{"in the order of their times", func(q *expiry.Queue[*thing], a, b, c *thing) {
			q.Set(a, in(3*time.Second))
			q.Set(b, in(time.Second))
			q.Set(c, in(2*time.Second))
		}, []string{"1s b", "2s c", "3s a"}},
		{"those with a past time at once", func(q *expiry.Queue[*thing], a, b, c *thing) {
			q.Set(a, in(-time.Second))
			q.Set(b, in(0))
		}, []string{"0s a", "0s b"}},
		{"also with one that never expires", func(q *expiry.Queue[*thing], a, b, c *thing) {
			q.Set(a, time.Unix(1<<60, 0))
			q.Set(b, in(time.Second))
			q.Remove(a)
			q.Set(c, in(2*time.Second))
			q.Set(a, time.Unix(1<<60, 0))
		}, []string{"1s b", "2s c"}},
		{"later when that is set", func(q *expiry.Queue[*thing], a, b, c *thing) {
			q.Set(a, in(time.Second))
			q.Set(b, in(2*time.Second))
			q.Set(a, in(3*time.Second))
		}, []string{"2s b", "3s a"}},
		{"sooner when that is set", func(q *expiry.Queue[*thing], a, b, c *thing) {
			q.Set(a, in(2*time.Second))
			q.Set(b, in(3*time.Second))
			q.Set(b, in(time.Second))
		}, []string{"1s b", "2s a"}},
		{"not once they are removed", func(q *expiry.Queue[*thing], a, b, c *thing) {
			q.Set(a, in(time.Second))
			q.Set(b, in(2*time.Second))
			q.Remove(a)
			q.Remove(a)
			q.Remove(c)
		}, []string{"2s b"}},
		{"again when set again", func(q *expiry.Queue[*thing], a, b, c *thing) {
			q.Set(a, in(time.Second))
			<-time.After(2 * time.Second)
			q.Remove(a)
			q.Set(a, in(time.Second))
		}, []string{"1s a", "3s a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &log{begin: time.Now()}
				q := expiry.New[*thing]()
				a, b, c := &thing{name: "a", log: l}, &thing{name: "b", log: l}, &thing{name: "c", log: l}
				tt.do(q, a, b, c)
				<-time.After(time.Minute)
				for _, t := range []*thing{a, b, c} {
					q.Remove(t)
				}
				synctest.Wait()
				if diff := cmp.Diff(tt.want, l.lines); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestVeryManyExpireInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{begin: time.Now()}
		q := expiry.New[*thing]()
		var want []string
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 1000 {
			d := time.Duration(i+1) * time.Second
			want = append(want, d.String()+" "+d.String())
			kept := &thing{name: d.String(), log: l}
			q.Set(kept, in(time.Duration(r.IntN(1000))*time.Second))
			q.Set(kept, in(d))
			other := &thing{name: "removed", log: l}
			q.Set(other, in(time.Duration(r.IntN(1000))*time.Second))
			defer q.Remove(other) // those still in at the end
			if i%2 == 0 {
				q.Remove(other)
			} else {
				q.Set(other, in(time.Hour))
			}
		}
		<-time.After(1000 * time.Second)
		synctest.Wait()
		if !slices.Equal(want, l.lines) {
			t.Errorf("not all in order:\n%s", cmp.Diff(want, l.lines))
		}
	})
}
