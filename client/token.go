package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// tokenTime bounds one call of a source.
	tokenTime = 30 * time.Second
	// freshTime is how long a token counts as fresh. A server whose clock is behind the
	// issuer's may reject a fresh token.
	freshTime = 5 * time.Second
	// freshWait is the least wait after a rejected fresh token; a random part of it is
	// added.
	freshWait = time.Second
)

// TokenSource supplies tokens.
type TokenSource interface {
	// Token returns a valid token. The client calls it before the first connection, before
	// a token expires, and after the server rejected a token; then Token should return a
	// different one. Calls do not overlap. ctx ends when the client no longer needs the
	// token, after 30 seconds at the latest, and Token must return then.
	//
	// An error that wraps [ErrUnauthenticated] ends the client. After any other error the
	// client retries later.
	Token(ctx context.Context) (string, error)
}

// TokenSourceFunc is a function that is a [TokenSource].
type TokenSourceFunc func(ctx context.Context) (string, error)

// Token calls the function.
func (f TokenSourceFunc) Token(ctx context.Context) (string, error) { return f(ctx) }

type fixedToken string

func (t fixedToken) Token(context.Context) (string, error) { return string(t), nil }

// checkToken rejects text that cannot be in an HTTP header. The error does not contain it.
func checkToken(token string) error {
	if token == "" {
		return errors.New("the token is empty")
	}
	if i := strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7F }); i >= 0 {
		return errors.New("the token contains a space, a control character or a character that is not ASCII")
	}
	return nil
}

// credentials holds the current token and the source of the next.
type credentials struct {
	source TokenSource
	fixed  bool

	// asking holds one value while a goroutine calls the source, so that calls do not
	// overlap. Unlike a mutex, it can be waited for with a context.
	asking chan struct{}

	// mu guards what follows.
	mu      sync.Mutex
	token   string    // "" if a new one is needed
	expires time.Time // by the wall clock; zero if unknown
	got     time.Time // when the source returned it
}

func newCredentials(source TokenSource, fixed bool) *credentials {
	return &credentials{source: source, fixed: fixed, asking: make(chan struct{}, 1)}
}

// get returns the current token, or a new one if there is none.
func (k *credentials) get(ctx context.Context) (string, error) {
	if token := k.current(); token != "" {
		return token, nil
	}
	select {
	case k.asking <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for a token: %w", ctx.Err())
	}
	defer func() { <-k.asking }()
	if token := k.current(); token != "" { // another goroutine got one meanwhile
		return token, nil
	}
	return k.ask(ctx)
}

func (k *credentials) current() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.fixed && !k.expires.IsZero() && time.Until(k.expires) < time.Second {
		return ""
	}
	return k.token
}

// another gets a new token while the current one is still valid.
func (k *credentials) another(ctx context.Context) (string, error) {
	select {
	case k.asking <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for a token: %w", ctx.Err())
	}
	defer func() { <-k.asking }()
	return k.ask(ctx)
}

// ask calls the source. The caller holds asking.
func (k *credentials) ask(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	token, err := k.source.Token(ctx)
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		return "", fmt.Errorf("getting a token: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if token != k.token {
		k.token, k.expires, k.got = token, time.Time{}, time.Now()
	}
	return token, nil
}

// with calls do with a token, and again with a new token after a 401. If a fresh token was
// rejected, the server's clock may be behind the issuer's: with then waits for a moment
// before its last attempt.
func (k *credentials) with(ctx context.Context, do func(token string) error) error {
	for waited := false; ; {
		token, err := k.get(ctx)
		if err != nil {
			return err
		}
		fresh := k.isFresh()
		err = do(token)
		if !isStatus(err, http.StatusUnauthorized) || waited || !k.refused(token) {
			return err
		}
		if !fresh {
			continue
		}
		waited = true
		if _, err := k.get(ctx); err != nil {
			return err
		}
		if !sleep(ctx, freshWait+rand.N(freshWait)) {
			return err
		}
	}
}

// isFresh reports whether the source returned the current token just now.
func (k *credentials) isFresh() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.got) < freshTime
}

// lives records how long a token is still valid.
func (k *credentials) lives(token string, left time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if token == k.token {
		// By the wall clock: the monotonic clock stands still while the machine sleeps.
		k.expires = time.Now().Round(0).Add(left)
	}
}

// refused records that the server rejected a token. It reports whether the source may have
// another.
func (k *credentials) refused(token string) bool {
	if k.fixed {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if token == k.token {
		k.token, k.expires = "", time.Time{}
	}
	return true
}
