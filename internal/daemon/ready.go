package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	// readyWithin bounds a backend's answer to whether it is ready.
	readyWithin = 2 * time.Second
	// readyFor is how long an answer is given to those who ask after it was found:
	// asking often costs the backends nothing.
	readyFor = time.Second
)

var (
	errDraining   = notReady{reason: "draining"}
	errStillAsked = errors.New("no answer yet to what an earlier probe asked")
)

// notReady is why no new clients should come.
type notReady struct {
	reason string // for anybody
	err    error  // for the log
}

func (n notReady) Error() string {
	if n.err == nil {
		return n.reason
	}
	return n.reason + ": " + n.err.Error()
}

func (n notReady) Unwrap() error { return n.err }

// readiness asks the backends whether new clients may come. One probe runs at a
// time, however many requests wait for its answer, and each part is asked by one
// goroutine at a time, also when it ignores the end of its context.
type readiness struct {
	checks   []Check
	draining func() bool
	log      *slog.Logger
	ctx      context.Context // ended by stop; probes end with it
	stop     context.CancelFunc

	mu     sync.Mutex // guards what follows; not held while a part is asked
	newest *probe     // nil before the first
	red    string     // the part that was logged last, "" for none

	asked []chan error // of each check, nil when it has answered; the running probe's
}

// probe is one question to all parts.
type probe struct {
	done  chan struct{} // closed when the fields below are set
	err   error
	ended time.Time
}

func newReadiness(checks []Check, draining func() bool, log *slog.Logger) *readiness {
	r := &readiness{checks: checks, draining: draining, log: log, asked: make([]chan error, len(checks))}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// of says why no new clients should come, or nil. The answer is at most readyFor
// old, but that of draining is never old.
func (r *readiness) of(req *http.Request) error {
	if r.draining() {
		return errDraining
	}
	p := r.current()
	select {
	case <-p.done:
		return p.err
	case <-req.Context().Done():
		return req.Context().Err()
	}
}

// current returns the probe that runs, or that ended a moment ago, or a new one.
func (r *readiness) current() *probe {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.newest; p != nil {
		select {
		case <-p.done:
			if time.Since(p.ended) < readyFor {
				return p
			}
		default:
			return p
		}
	}
	p := &probe{done: make(chan struct{})}
	r.newest = p
	go func() { // ends within readyWithin, and with r.ctx
		p.err = r.probe()
		p.ended = time.Now()
		r.logChange(p.err)
		close(p.done)
	}()
	return p
}

// probe asks all parts at once. A part that does not answer in time is not ready.
func (r *readiness) probe() error {
	ctx, cancel := context.WithTimeout(r.ctx, readyWithin)
	defer cancel()
	errs := make([]error, len(r.checks))
	for i, c := range r.checks {
		if r.asked[i] != nil {
			select {
			case <-r.asked[i]: // the answer to an earlier probe, too late
			default:
				errs[i] = errStillAsked
				continue
			}
		}
		answer := make(chan error, 1)
		r.asked[i] = answer
		go func() { answer <- c.Ask(ctx) }()
	}
	for i, c := range r.checks {
		err := errs[i]
		if err == nil {
			select {
			case err = <-r.asked[i]:
				r.asked[i] = nil
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err != nil {
			return notReady{c.Part, err}
		}
	}
	return nil
}

// logChange logs the first answer that is not what it was before: once with the
// cause when a part fails, once when all are ready again.
func (r *readiness) logChange(err error) {
	why, failed := errors.AsType[notReady](err)
	if r.ctx.Err() != nil {
		return // it is asked no more
	}
	r.mu.Lock()
	changed := r.red != why.reason
	r.red = why.reason
	r.mu.Unlock()
	switch {
	case changed && failed:
		r.log.Warn("not ready", "err", err)
	case changed:
		r.log.Info("ready again")
	}
}
