package chat

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/reto10/chat/internal/wire"
)

// What callers tell apart with [errors.Is]. Every error of this package wraps
// one of these or the error of the port that failed.
var (
	// ErrUnauthenticated: the token or the password does not hold (401, 4001).
	ErrUnauthenticated = errors.New("chat: unauthenticated")
	// ErrForbidden: the user may not do this (403, code "forbidden").
	ErrForbidden = errors.New("chat: forbidden")
	// ErrInvalid: what was asked makes no sense (400, code "invalid").
	ErrInvalid = errors.New("chat: invalid")
	// ErrTooLarge: the content is over the limit (413, code "too_large").
	ErrTooLarge = errors.New("chat: too large")
	// ErrUnavailable: a port could not do its work now (503, code "unavailable").
	ErrUnavailable = errors.New("chat: unavailable")
	// ErrNotJoined: the socket is not in the channel (code "not_joined").
	ErrNotJoined = errors.New("chat: channel not joined")
	// ErrGone: a history no longer keeps what followed a place, or never knew it.
	ErrGone = errors.New("chat: no longer kept")

	// These are for clients, not for callers from Go.

	errTooFast  = errors.New("chat: too fast")         // commands
	errTooOften = errors.New("chat: too often")        // handshakes
	errTooMany  = errors.New("chat: too many sockets") // of a user
)

// wrapf makes an error of one of the package's kinds. Its text goes out to
// clients, so it holds nothing secret.
func wrapf(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
}

// wrapUnavailable wraps the error of a port that could not do what was being done.
func wrapUnavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}

// later is an error that passes: what failed may be tried again after the wait.
type later struct {
	error
	wait time.Duration
}

func (l *later) Unwrap() error { return l.error }

// kind is how an error is told to clients.
type kind struct {
	err    error
	status int    // over HTTP
	code   string // over a socket
	text   string // when the error says no more than its kind
}

var kinds = []kind{
	{ErrUnauthenticated, http.StatusUnauthorized, wire.CodeForbidden, "the token does not hold"},
	{ErrForbidden, http.StatusForbidden, wire.CodeForbidden, "not allowed"},
	{ErrInvalid, http.StatusBadRequest, wire.CodeInvalid, "not valid"},
	{ErrTooLarge, http.StatusRequestEntityTooLarge, wire.CodeTooLarge, "too large"},
	{errTooFast, http.StatusTooManyRequests, wire.CodeRateLimited, "too fast"},
	{errTooOften, http.StatusTooManyRequests, wire.CodeRateLimited, "this user connects too often, wait"},
	{errTooMany, http.StatusTooManyRequests, wire.CodeRateLimited, "too many sockets for this user"},
	{ErrNotJoined, http.StatusConflict, wire.CodeNotJoined, "channel not joined"},
}

// explain says how err is told to a client. Of what is the client's to mend it
// tells all; of anything else only that it is unavailable.
func explain(err error) (k kind, text string) {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			if text, ok := strings.CutPrefix(err.Error(), k.err.Error()+": "); ok {
				return k, text
			}
			return k, k.text
		}
	}
	k = kind{ErrUnavailable, http.StatusServiceUnavailable, wire.CodeUnavailable, "unavailable, try again later"}
	return k, k.text
}

func shorten(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
