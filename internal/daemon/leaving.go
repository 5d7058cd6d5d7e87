package daemon

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"
)

// leaving is the time between SIGTERM and draining: the server is not ready any more,
// and serves as before, until whoever sends clients to it has noticed.
type leaving struct {
	delay time.Duration
	begun atomic.Bool
}

// parseDelay reads a duration that may be none.
func parseDelay(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errors.New("not a duration such as 3s, or 0s")
	}
	return d, nil
}

// pause begins to leave, and waits for the delay or the end of ctx.
func (l *leaving) pause(ctx context.Context) {
	l.begun.Store(true)
	if l.delay == 0 {
		return
	}
	timer := time.NewTimer(l.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// around has each connection end with the answer that it is used for from then on. A
// proxy that keeps connections would otherwise send a request over one just as the
// server closes it, and could not know whether that was carried out. A handshake's 101
// has a Connection of its own instead, and its refusal this one.
func (l *leaving) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.begun.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
