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
	// tokenTime is how long a source may take for a token.
	tokenTime = 30 * time.Second
	// freshTime is how long a token counts as just obtained. A server whose clock is
	// behind the clock of the issuer may refuse it.
	freshTime = 5 * time.Second
	// freshWait is the least wait before the next token is tried then; a random part of
	// it is added.
	freshWait = time.Second
)

// TokenSource gives tokens. Token is called by one goroutine at a time: for the
// first connection, ahead of the end of a token, and when one no longer holds; then
// it should not give the same again. ctx ends when the token is not wanted any more,
// after 30 seconds at the latest, and Token has to return then.
//
// An error that wraps [ErrUnauthenticated] says that there will be no token any
// more, and ends the client. After any other it is asked again later.
type TokenSource interface {
	// Token returns one that holds from now on.
	Token(ctx context.Context) (string, error)
}

// TokenSourceFunc is a function that is a [TokenSource].
type TokenSourceFunc func(ctx context.Context) (string, error)

// Token calls the function.
func (f TokenSourceFunc) Token(ctx context.Context) (string, error) { return f(ctx) }

type fixedToken string

func (t fixedToken) Token(context.Context) (string, error) { return string(t), nil }

// checkToken refuses what cannot stand in a header, without repeating it.
func checkToken(token string) error {
	if token == "" {
		return errors.New("the token is empty")
	}
	if i := strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7F }); i >= 0 {
		return errors.New("the token holds what no token can: a space, a line's end, or no ASCII")
	}
	return nil
}

// credentials is the token in use, and where to get another.
type credentials struct {
	source TokenSource
	fixed  bool

	// asking is held while the source is asked, so that only one does. It is there
	// to be waited for, with a context.
	asking chan struct{}

	// mu guards what follows.
	mu      sync.Mutex
	token   string    // "" when another is needed
	expires time.Time // by the wall clock; zero when that is not known
	got     time.Time // when the source gave it
}

func newCredentials(source TokenSource, fixed bool) *credentials {
	return &credentials{source: source, fixed: fixed, asking: make(chan struct{}, 1)}
}

// get is the token in use, or a new one.
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
	if token := k.current(); token != "" { // somebody else's asking
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

// another asks the source for a token ahead of the end of the one in use.
func (k *credentials) another(ctx context.Context) (string, error) {
	select {
	case k.asking <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for a token: %w", ctx.Err())
	}
	defer func() { <-k.asking }()
	return k.ask(ctx)
}

// ask is called by who holds asking.
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

// with does something with a token, and again with another one when the server
// refuses it with 401. A token that was just obtained may hold only a moment later,
// where clocks differ: the next one has that moment, and is the last.
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

// isFresh reports whether the token in use was just obtained.
func (k *credentials) isFresh() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.got) < freshTime
}

// lives says for how long a token holds.
func (k *credentials) lives(token string, left time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if token == k.token {
		// By the wall clock: the other one stands still while the machine sleeps.
		k.expires = time.Now().Round(0).Add(left)
	}
}

// refused says that a token does not hold, and reports whether another can be had.
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
