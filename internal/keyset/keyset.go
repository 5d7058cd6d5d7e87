// Package keyset holds the public keys of an identity provider: it fetches them
// as a JSON Web Key Set (RFC 7517), keeps them fresh, and checks tokens with
// them.
//
// It parses keys with jwx but does not use jwx's jwk.Cache: there, reading waits
// while a fetch hangs, each fetch asked for adds one more periodic fetch for
// good, and response bodies stay open. Here a check reads one pointer.
package keyset

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

	"github.com/reto10/chat/internal/throttle"
	"github.com/reto10/chat/internal/token"
)

const (
	// Refresh is how often the keys are fetched anew: a key that the provider
	// takes back is refused after this long at the latest, once the provider
	// publishes another.
	Refresh = 5 * time.Minute

	// RetryFirst is when a fetch that failed is repeated; the time doubles with each
	// that fails, up to Refresh.
	RetryFirst = 10 * time.Second

	// look is how often it is looked whether a fetch is due, by the wall clock: timers
	// stand still while the machine is suspended.
	look = time.Second

	// A token with an unknown key makes for a fetch at once, as long as that
	// happens seldom: this many times, then once each so long.
	missBurst = 3
	missEvery = 10 * time.Second
)

var (
	// ErrAddress says that keys must not be fetched from an address.
	ErrAddress = errors.New("not an address to trust keys from")
	// ErrStopped says that the context of [Open] has ended.
	ErrStopped = errors.New("the keys are no longer kept fresh")
)

// Set is the keys of one provider. It is safe for concurrent use.
type Set struct {
	url     string
	client  *http.Client
	log     *slog.Logger
	keys    atomic.Pointer[keys]
	wanted  chan struct{} // has one when waiting is set and not yet seen to
	stopped chan struct{} // closed when keep ends

	mu      sync.Mutex
	budget  throttle.Bucket
	waiting *fetching // those with an unknown key, nil when there are none
	failure error     // why the last fetch failed, nil when it did not
}

// fetching is a fetch that somebody waits for. err may be read after done.
type fetching struct {
	done chan struct{}
	err  error
}

// Open fetches the keys at address and keeps them fresh in one goroutine until
// ctx ends. The address has to be https, or http on a loopback host, and so has
// whatever it redirects to: who can change the keys on their way can sign
// tokens. A nil client is a plain one over [http.DefaultTransport]. Later, the log is
// told when the keys cannot be fetched any more, and when they can again.
//
// The error names the address: it is not one to use ([ErrAddress]), cannot be
// reached within [Timeout], or holds no key that a token can be checked with.
func Open(ctx context.Context, address string, client *http.Client, log *slog.Logger) (*Set, error) {
	parsed, err := url.Parse(address)
	if err != nil { // whose text would quote a password in it
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

// Verify checks that the token is signed by one of the keys: RS256, ES256 or
// EdDSA, with a key of just that kind, the one that the token names if it names
// one.
//
// A key that is not known makes for one fetch, together with all others who
// wait for one, and not too often; so a new key works at once. A [token.Refusal]
// means that the token does not hold, by keys no older than that. Any other
// error means that the provider could not be asked, or ctx ended first, and that
// the token may well be good.
func (s *Set) Verify(ctx context.Context, t *token.JWS) error {
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
		return token.ErrSignature
	}
	return err
}

// refetch has the keys fetched, if that may be now, and waits for it. Where it
// may not be, because it was just done, the error is how that went.
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

// keep fetches the keys at intervals and when somebody waits for them. When a
// fetch fails the keys stay as they are, and it is repeated soon.
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
			// The other case is a clock that was set back.
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
		default: // asked for in between, and nothing has changed
			failed = before
		}
	}
}

// report logs the first fetch of a row that failed, and the first one after it that
// did not. It returns how many failed in a row.
func (s *Set) report(err error, failed int) int {
	switch {
	case err == nil && failed > 0:
		s.log.Info("the keys that tokens are checked with could be fetched again", "url", redacted(s.url), "failed", failed)
	case err != nil && failed == 0:
		s.log.Warn("the keys that tokens are checked with could not be fetched, those from before are used", "error", err)
	}
	if err == nil {
		return 0
	}
	return failed + 1
}

// pause is the time to the next fetch, after so many in a row that failed.
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
