// Package jwks verifies tokens with the public keys of an identity provider. It fetches
// the keys as a JSON Web Key Set (RFC 7517) and keeps them fresh.
//
// It parses keys with jwx but does not use jwx's jwk.Cache. There, a reader waits while a
// fetch hangs, each requested fetch adds another periodic fetch, and response bodies stay
// open. Here a check reads one pointer.
package jwks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/jwt"
	"github.com/reto10/chat/internal/throttle"
)

const (
	// Refresh is the interval between fetches. A key that the provider withdraws is
	// rejected after this time at the latest, if the provider publishes another key.
	Refresh = 5 * time.Minute

	// RetryFirst is the wait after a failed fetch. It doubles with each failure, up to
	// Refresh.
	RetryFirst = 10 * time.Second

	// look is how often keep compares the wall clock with the time of the next fetch: a
	// timer stands still while the machine is suspended.
	look = time.Second

	// A token with an unknown key causes a fetch at once: missBurst times, then at most
	// once per missEvery.
	missBurst = 3
	missEvery = 10 * time.Second
)

var (
	// ErrAddress means that keys must not be fetched from an address.
	ErrAddress = errors.New("not an address to trust keys from")
	// ErrStopped means that the context of [Open] has ended.
	ErrStopped = errors.New("the keys are no longer kept fresh")
)

// Set holds the keys of one provider. It is safe for concurrent use.
type Set struct {
	url     string
	client  *http.Client
	log     *slog.Logger
	keys    atomic.Pointer[keys]
	wanted  chan struct{} // holds one value from when waiting is set until keep fetches
	stopped chan struct{} // closed when keep ends

	mu      sync.Mutex
	budget  throttle.Bucket
	waiting *fetching // the requested fetch, nil if there is none
	failure error     // the last fetch's error
}

// fetching is a fetch that callers of Verify wait for. err may be read once done is
// closed.
type fetching struct {
	done chan struct{}
	err  error
}

// Open fetches the keys at address. One goroutine then keeps them fresh until ctx ends;
// it logs the first failed fetch in a row, and the first that succeeds again. The address
// and all its redirects must be https, or http on a loopback host: an attacker who can
// change the keys in transit can sign tokens. A nil client stands for a plain one with
// [http.DefaultTransport].
//
// The error names the address. It wraps [ErrAddress] if the address is not allowed.
// Otherwise the provider did not answer within [Timeout], or published no key that can
// verify a token.
func Open(ctx context.Context, address string, client *http.Client, log *slog.Logger) (*Set, error) {
	parsed, err := url.Parse(address)
	if err != nil { // its text would quote a password in the address
		return nil, fmt.Errorf("key set: %w: no URL", ErrAddress)
	}
	if err := safe(parsed); err != nil {
		return nil, fmt.Errorf("key set %s: %w", parsed.Redacted(), err)
	}
	s := &Set{
		url:     address,
		client:  guarded(client),
		log:     log,
		wanted:  make(chan struct{}, 1),
		stopped: make(chan struct{}),
	}
	found, err := s.fetch(ctx)
	if err != nil {
		return nil, err
	}
	s.keys.Store(found)
	go s.keep(ctx)
	return s, nil
}

// Verify checks that the token is signed with RS256, ES256 or EdDSA by one of the keys of
// that algorithm. If the token names a key, that key must have signed it.
//
// For an unknown key, Verify waits for a fetch, so that a new key works at once. All
// callers share that fetch, and its rate is limited. A [jwt.Refusal] means that the token
// is invalid. Any other error means that the fetch failed or ctx ended first; the token
// may be valid.
func (s *Set) Verify(ctx context.Context, t *jwt.Token) error {
	known := s.keys.Load()
	err := known.verify(t)
	if !errors.Is(err, errUnknownKey) {
		return err
	}
	if err := s.refetch(ctx); err != nil {
		return err
	}
	if fresh := s.keys.Load(); fresh != known {
		err = fresh.verify(t)
	}
	if errors.Is(err, errUnknownKey) {
		return jwt.ErrSignature
	}
	return err
}

// Verified returns the cache for tokens that the keys in use verified. It is another one
// after each fetch. A caller may add a token that Verify accepted only if Verified returns
// the same cache before and after that call.
func (s *Set) Verified() *jwt.Cache { return &s.keys.Load().verified }

// refetch requests a fetch and waits for it. If the rate limit allows no fetch now,
// refetch returns the error of the last one.
func (s *Set) refetch(ctx context.Context) error {
	s.mu.Lock()
	f := s.waiting
	if f == nil {
		if !s.budget.Take(time.Now(), float64(time.Second)/float64(missEvery), missBurst) {
			defer s.mu.Unlock()
			return s.failure
		}
		f = &fetching{done: make(chan struct{})}
		s.waiting = f
		s.wanted <- struct{}{}
	}
	s.mu.Unlock()

	select {
	case <-f.done:
		return f.err
	case <-s.stopped:
		return ErrStopped
	case <-ctx.Done():
		return fmt.Errorf("waiting for a key set: %w", ctx.Err())
	}
}

// keep fetches the keys at intervals and on request, until ctx ends. After a failed fetch
// the keys stay as they are, and keep retries soon. It is the goroutine that [Open] starts.
func (s *Set) keep(ctx context.Context) {
	defer close(s.stopped)
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	now := func() time.Time { return time.Now().Round(0) }
	due := now().Add(Refresh)
	failed := 0 // in a row
	for {
		var f *fetching
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			// left > Refresh if the clock was set back.
			if left := due.Sub(now()); left > 0 && left <= Refresh {
				continue
			}
		case <-s.wanted:
			s.mu.Lock()
			f = s.waiting
			s.mu.Unlock()
		}
		found, err := s.fetch(ctx)
		if err == nil {
			s.keys.Store(found)
		}
		s.mu.Lock()
		s.failure = err
		if f != nil {
			s.waiting = nil
		}
		s.mu.Unlock()
		if f != nil {
			f.err = err
			close(f.done)
		}
		if ctx.Err() != nil {
			return
		}
		before := failed
		failed = s.report(err, failed)
		switch {
		case f == nil, (before > 0) != (failed > 0):
			due = now().Add(pause(failed))
		default: // a requested fetch with the same outcome leaves the schedule as it is
			failed = before
		}
	}
}

// report logs the first failed fetch in a row, and the first success after it. It returns
// how many fetches failed in a row.
func (s *Set) report(err error, failed int) int {
	switch {
	case err == nil && failed > 0:
		s.log.Info("fetched the JWKS again", "url", redacted(s.url), "failed", failed)
	case err != nil && failed == 0:
		s.log.Warn("fetching the JWKS failed, the known keys stay in use", "error", err)
	}
	if err == nil {
		return 0
	}
	return failed + 1
}

// pause returns the time until the next fetch, after this many failures in a row.
func pause(failed int) time.Duration {
	d := RetryFirst
	for range failed - 1 {
		if d >= Refresh {
			break
		}
		d *= 2
	}
	if failed == 0 || d > Refresh {
		return Refresh
	}
	return d
}
