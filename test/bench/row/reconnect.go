package row

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/reto10/chat/test/bench/load"
	"github.com/reto10/chat/test/bench/peer"
)

const (
	// missed is how many messages the sockets that resume have missed, and earlier how many
	// were published before.
	missed  = 100
	earlier = 10
)

// reconnect measures the CPU of a missed message that is sent to a socket after it resumed.
func (l *Lab) reconnect(ctx context.Context, kind string) (Values, error) {
	n := pick(l, 2000, 300)
	v := Values{}
	c := config{kind: kind, direct: true, history: true}
	cost, err := l.resumed(ctx, c, n, pick(l, 3, 1), cpuAndReads)
	if err == nil {
		v["reconnect"] = cost.cpu / float64(n)
	}
	return v, err
}

// reconnectSQLite measures the reads of a history in a file.
func (l *Lab) reconnectSQLite(ctx context.Context, kind string) (Values, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary
	return l.reconnectBacked(ctx, config{kind: kind, backend: "sqlite", store: filepath.Join(dir, "history.db")}, cpuAndReads)
}

// reconnectRedis measures the reads of the history in Redis' streams. Both servers read it with
// XRANGE or XREVRANGE. This library reads joins and leaves with XREAD, which does not count.
func (l *Lab) reconnectRedis(ctx context.Context, kind string) (Values, error) {
	r, err := l.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	return l.reconnectBacked(ctx, config{kind: kind, backend: "redis", store: r.addr}, func(ctx context.Context, t *trial) (spent, error) {
		s, err := cpuAndReads(ctx, t)
		if err != nil {
			return s, err
		}
		info, err := r.info(ctx)
		s.reads = info.calls("xrange") + info.calls("xrevrange")
		return s, err
	})
}

func (l *Lab) reconnectBacked(ctx context.Context, c config, m meter) (Values, error) {
	n := pick(l, 2000, 300)
	c.history = true
	cost, err := l.resumed(ctx, c, n, 1, m)
	if err != nil {
		return nil, err
	}
	prefix := "reconnect." + c.backend
	return Values{prefix: cost.cpu / float64(n), prefix + ".reads": cost.reads}, nil
}

// spent is what resuming costs: the server's CPU in microseconds and reads of the backend.
type spent struct{ cpu, reads float64 }

func (s spent) minus(t spent) spent { return spent{s.cpu - t.cpu, s.reads - t.reads} }

// meter reads what was spent so far.
type meter func(context.Context, *trial) (spent, error)

func cpuAndReads(ctx context.Context, t *trial) (spent, error) {
	u, err := t.usage(ctx, false)
	return spent{micros(u.CPU), float64(u.Reads)}, err
}

func least(a, b spent) spent { return spent{min(a.cpu, b.cpu), min(a.reads, b.reads)} }

// resumed returns what a missed message costs when n sockets resume. The CPU is the difference
// between sockets that missed messages and sockets that missed none. The reads are all those of
// the sockets that missed messages, because the others read too. Both are the least of several
// rounds, because what disturbs a round adds to its cost.
func (l *Lab) resumed(ctx context.Context, c config, n, rounds int, m meter) (spent, error) {
	r := &resumption{dialect: peer.NewDialect(c.kind, l.token), n: n, own: c.direct, meter: m}
	who := crowd{users: n, channels: func(int) []string { return nil }, count: r.count, resume: r.resume}
	none := spent{math.Inf(1), math.Inf(1)}
	all := none
	err := l.with(ctx, c, who, func(t *trial) error {
		r.trial = t
		before, err := r.positions(ctx, earlier)
		if err != nil {
			return err
		}
		after, err := r.positions(ctx, missed)
		if err != nil {
			return err
		}
		for range rounds {
			cost, err := r.connect(ctx, after, 0)
			if err != nil {
				return fmt.Errorf("resuming behind nothing: %w", err)
			}
			none = least(none, cost)
			cost, err = r.connect(ctx, before, missed)
			if err != nil {
				return fmt.Errorf("resuming behind %d messages: %w", missed, err)
			}
			all = least(all, cost)
		}
		return nil
	})
	return spent{(all.cpu - none.cpu) / missed, all.reads / missed}, err
}

// resumption is the clients that resume.
type resumption struct {
	*trial
	dialect peer.Dialect
	n       int  // sockets and users
	own     bool // resume in the users' own channels too, each of which needs a read of its own
	meter   meter

	mu   sync.Mutex
	from []string // by user: what the next sockets resume from; nil: nothing
	next []string // by user: what the last sockets could resume from
}

func (r *resumption) resume(user int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from == nil {
		return ""
	}
	return r.from[user]
}

// count counts the published messages, in the load's loop.
func (r *resumption) count(s *load.Socket, message []byte) int {
	r.mu.Lock()
	if r.next != nil {
		if resume, ok := r.dialect.Resume(message, r.own); ok {
			r.next[s.Number%r.n] = resume
		}
	}
	r.mu.Unlock()
	return peer.Stamps(message, func(seq uint64) {
		if s.Stamped++; s.Last > 0 && seq != s.Last+1 {
			s.Disorder++
		}
		s.Last = seq
	})
}

// positions publishes messages and returns what the users who connect then can resume from.
func (r *resumption) positions(ctx context.Context, messages int) ([]string, error) {
	if err := r.publish(ctx, order{n: messages, size: contentSize}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.from, r.next = nil, make([]string, r.n)
	r.mu.Unlock()
	if err := r.trial.connect(ctx, r.n); err != nil {
		return nil, err
	}
	r.mu.Lock()
	positions := r.next
	r.next = nil
	r.mu.Unlock()
	for user, position := range positions {
		if position == "" {
			return nil, fmt.Errorf("user %d received no position", user)
		}
	}
	return positions, r.hangAll(ctx)
}

// connect has all users resume, checks that each receives the messages, and returns what that
// cost.
func (r *resumption) connect(ctx context.Context, from []string, messages int) (cost spent, err error) {
	r.mu.Lock()
	r.from = from
	r.mu.Unlock()
	if _, err := r.usage(ctx, true); err != nil { // all begin with a collected heap
		return cost, err
	}
	before, err := r.meter(ctx, r.trial)
	if err != nil {
		return cost, err
	}
	const endless = 1 << 40
	goal := r.Counted() + int64(r.n*messages)
	r.Expect(goal + endless) // the clients rest, whether messages come or not
	first := r.Dialed()
	if err := r.Dial(ctx, r.n); err != nil {
		return cost, err
	}
	if err := r.Await(ctx, goal, patience); err != nil {
		return cost, err
	}
	if err := r.Quiet(ctx, r.stillness); err != nil {
		return cost, err
	}
	after, err := r.meter(ctx, r.trial)
	if err != nil {
		return cost, err
	}
	var wrong error
	r.Each(func(s *load.Socket) {
		if s.Number >= first && (s.Stamped != messages || s.Disorder > 0 || messages > 0 && s.Last != earlier+missed) {
			wrong = fmt.Errorf("socket %d received %d messages of %d, %d of them in another order, the last one %d",
				s.Number, s.Stamped, messages, s.Disorder, s.Last)
		}
	})
	return after.minus(before), errors.Join(wrong, r.hangAll(ctx))
}

// hangAll closes all sockets and returns when the server is at rest.
func (r *resumption) hangAll(ctx context.Context) error {
	for i := range r.n {
		if err := r.Hang(r.Dialed() - 1 - i); err != nil {
			return err
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; <-tick.C {
		u, err := r.usage(ctx, false)
		switch {
		case err != nil:
			return err
		case u.Sockets == 0:
			return r.Quiet(ctx, r.stillness)
		case time.Since(begin) > patience:
			return fmt.Errorf("%d sockets are still connected after all clients left", u.Sockets)
		}
	}
}
