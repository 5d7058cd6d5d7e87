package chat

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/reto10/chat/internal/wire"
)

// Kinds of errors, for [errors.Is]. An error of a running [Service] wraps one of them,
// or the error of its context.
var (
	// ErrUnauthenticated: the token is invalid, or the password is wrong (401, 4001).
	ErrUnauthenticated = errors.New("chat: unauthenticated")
	// ErrForbidden: the user may not do this (403, code "forbidden").
	ErrForbidden = errors.New("chat: forbidden")
	// ErrInvalid: an argument, command or request is invalid (400, code "invalid").
	ErrInvalid = errors.New("chat: invalid")
	// ErrTooLarge: the content is over the limit (413, code "too_large").
	ErrTooLarge = errors.New("chat: too large")
	// ErrUnavailable: a port could not do its work now (503, code "unavailable").
	ErrUnavailable = errors.New("chat: unavailable")
	// ErrNotJoined: the socket is not in the channel (code "not_joined").
	ErrNotJoined = errors.New("chat: channel not joined")
	// ErrGone: the history no longer keeps the message after a position, or does not
	// know the position.
	ErrGone = errors.New("chat: no longer kept")

	// The errors below reach clients, but no Go caller.

	errTooFast  = errors.New("chat: too fast")         // commands
	errTooOften = errors.New("chat: too often")        // handshakes
	errTooMany  = errors.New("chat: too many sockets") // of a user
)

// wrapf returns an error of one of the kinds above. Clients get its text, so the text
// must not contain a secret.
func wrapf(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
}

// wrapUnavailable wraps the error of a port. doing says what the service was doing.
func wrapUnavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}

// retryableError is an error after which the client may retry, once wait is over.
type retryableError struct {
	error
	wait time.Duration
}

func (e *retryableError) Unwrap() error { return e.error }

// kind is how clients get the errors that wrap err.
type kind struct {
	err    error
	status int    // over HTTP
	code   string // over a socket
	text   string // for clients, if the error has no text of its own
}

var kinds = []kind{
	{ErrUnauthenticated, http.StatusUnauthorized, wire.CodeForbidden, "the token is invalid"},
	{ErrForbidden, http.StatusForbidden, wire.CodeForbidden, "not allowed"},
	{ErrInvalid, http.StatusBadRequest, wire.CodeInvalid, "invalid"},
	{ErrTooLarge, http.StatusRequestEntityTooLarge, wire.CodeTooLarge, "too large"},
	{errTooFast, http.StatusTooManyRequests, wire.CodeRateLimited, "too fast"},
	{errTooOften, http.StatusTooManyRequests, wire.CodeRateLimited, "this user connects too often, wait"},
	{errTooMany, http.StatusTooManyRequests, wire.CodeRateLimited, "too many sockets for this user"},
	{ErrNotJoined, http.StatusConflict, wire.CodeNotJoined, "channel not joined"},
}

// explain returns the kind and the text of err for a client. The text of an error that
// the client caused is complete. Any other error becomes "unavailable".
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

// shorten limits the text of a client that an error repeats.
func shorten(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
