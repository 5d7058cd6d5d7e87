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
	// probeTimeout bounds how long a part may take to answer.
	probeTimeout = 2 * time.Second
	// probeMaxAge is how long the result of a probe answers requests: frequent requests
	// cost the backends nothing.
	probeMaxAge = time.Second
)

var (
	errDraining     = notReady{reason: "draining"}
	errProbePending = errors.New("an earlier probe is still waiting for an answer")
)

// notReady is the error of a server that should get no new clients.
type notReady struct {
	reason string // public: a part, or "draining"
	err    error  // for the log only
}

func (n notReady) Error() string {
	if n.err == nil {
		return n.reason
	}
	return n.reason + ": " + n.err.Error()
}

func (n notReady) Unwrap() error { return n.err }

// readiness tells whether the server should get new clients. Requests share the probe
// that runs, and its result. A part is asked once at a time, even if it ignores the end
// of its context.
type readiness struct {
	checks   []Check
	draining func() bool
	log      *slog.Logger
	ctx      context.Context // of all probes; ended by stop
	stop     context.CancelFunc

	mu         sync.Mutex // guards the next two; not held while a part is asked
	newest     *probe     // nil before the first
	loggedPart string     // the part that is logged as not ready, "" for none

	pending []chan error // by check, nil when it has answered; only the running probe uses it
}

// probe is one question to all parts.
type probe struct {
	done  chan struct{} // closed when the fields below are set
	err   error
	ended time.Time
}

func newReadiness(checks []Check, draining func() bool, log *slog.Logger) *readiness {
	r := &readiness{checks: checks, draining: draining, log: log, pending: make([]chan error, len(checks))}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// check returns why the server should get no new clients, or nil. The answer is at most
// probeMaxAge old; draining is noticed at once.
func (r *readiness) check(req *http.Request) error {
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

// current returns the running probe, else one that is recent enough, else a new one.
func (r *readiness) current() *probe {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.newest; p != nil {
		select {
		case <-p.done:
			if time.Since(p.ended) < probeMaxAge {
				return p
			}
		default:
			return p
		}
	}
	p := &probe{done: make(chan struct{})}
	r.newest = p
	go func() { // ends within probeTimeout, and with r.ctx
		p.err = r.probe()
		p.ended = time.Now()
		r.logChange(p.err)
		close(p.done)
	}()
	return p
}

// probe asks all parts at once. It returns the first one, in the order of checks, that
// fails or does not answer in time.
func (r *readiness) probe() error {
	ctx, cancel := context.WithTimeout(r.ctx, probeTimeout)
	defer cancel()
	errs := make([]error, len(r.checks))
	for i, c := range r.checks {
		if r.pending[i] != nil {
			select {
			case <-r.pending[i]: // the late answer to an earlier probe
			default:
				errs[i] = errProbePending
				continue
			}
		}
		answer := make(chan error, 1)
		r.pending[i] = answer
		go func() { answer <- c.Ask(ctx) }()
	}
	for i, c := range r.checks {
		err := errs[i]
		if err == nil {
			select {
			case err = <-r.pending[i]:
				r.pending[i] = nil
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

// logChange logs a result that differs from the one before: the cause when a part fails,
// and one line when all parts are ready again.
func (r *readiness) logChange(err error) {
	why, failed := errors.AsType[notReady](err)
	if r.ctx.Err() != nil {
		return // the server has stopped
	}
	r.mu.Lock()
	changed := r.loggedPart != why.reason
	r.loggedPart = why.reason
	r.mu.Unlock()
	switch {
	case changed && failed:
		r.log.Warn("not ready", "err", err)
	case changed:
		r.log.Info("ready again")
	}
}
