package client

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/reto10/chat/internal/wire"
)

// What callers tell apart with [errors.Is]. They are this package's own, so that a
// client need not be built with the server's package and what that depends on.
var (
	// ErrUnauthenticated: the password or the token does not hold, and no other is
	// to be had (401, close code 4001).
	ErrUnauthenticated = errors.New("client: unauthenticated")
	// ErrForbidden: the user may not do this (403, code "forbidden").
	ErrForbidden = errors.New("client: forbidden")
	// ErrInvalid: what was asked makes no sense (400, code "invalid").
	ErrInvalid = errors.New("client: invalid")
	// ErrNotFound: there is no such route; often the URL is not that of a service (404).
	ErrNotFound = errors.New("client: not found")
	// ErrTooLarge: the content is over the server's limit (413, code "too_large",
	// close code 1009), or the request line or a header is over a proxy's (414, 431).
	ErrTooLarge = errors.New("client: too large")
	// ErrRateLimited: too many commands or tries, or the user connects too often or has
	// too many sockets; wait before the next (429, code "rate_limited", close code
	// 4005). A [Client] that has connected once waits and retries.
	ErrRateLimited = errors.New("client: rate limited")
	// ErrNotJoined: the channel to leave is not joined (code "not_joined").
	ErrNotJoined = errors.New("client: channel not joined")
	// ErrUnavailable: the server cannot do it now (503 and other 5xx, code
	// "unavailable"). A broadcast may have been stored all the same.
	ErrUnavailable = errors.New("client: unavailable")

	// ErrUnconfirmed: a broadcast was sent, and the connection or the caller's
	// context ended before the answer came. It may have been stored or not: whoever
	// repeats it may send it twice.
	ErrUnconfirmed = errors.New("client: unconfirmed")
	// ErrDisconnected: an admin disconnected the user (close code 4002).
	ErrDisconnected = errors.New("client: disconnected by an admin")
	// ErrReplaced: replaced by a newer socket of this user (close code 4004); rarely, one
	// too many that was found late. A handshake that is one too many is ErrRateLimited
	// (429).
	ErrReplaced = errors.New("client: replaced by a newer socket of this user")
	// ErrClosed: [Client.Close] was called.
	ErrClosed = errors.New("client: closed")
	// ErrBehind: the consumer of [Client.Events] is so far behind that what comes is
	// dropped, to be fetched once it has caught up. It is in [Lost] alone.
	ErrBehind = errors.New("client: the consumer is behind")
	// ErrProtocol: the server sent what makes no sense.
	ErrProtocol = errors.New("client: protocol error")
	// ErrConsumed: another loop over [Client.Events] has not ended.
	ErrConsumed = errors.New("client: the events are being consumed already")
)

// A StatusError is an HTTP answer that says no. It wraps what it means, such as
// [ErrForbidden], where this package has a name for that.
type StatusError struct {
	Status     int           // of the HTTP answer
	Detail     string        // of the server's, for people; may be empty
	RetryAfter time.Duration // what the server asks to wait, 0 when it does not
}

func (e *StatusError) Error() string {
	text := http.StatusText(e.Status)
	switch {
	case e.Detail != "":
		text = e.Detail
	case e.Status == http.StatusRequestURITooLong, e.Status == http.StatusRequestHeaderFieldsTooLarge:
		text += ": the address or the token is longer than a proxy on the way takes"
	}
	return fmt.Sprintf("status %d: %s", e.Status, text)
}

// Unwrap is the kind of the error.
func (e *StatusError) Unwrap() error {
	switch e.Status {
	case http.StatusUnauthorized:
		return ErrUnauthenticated
	case http.StatusForbidden:
		return ErrForbidden
	case http.StatusBadRequest, http.StatusUpgradeRequired:
		return ErrInvalid
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return ErrTooLarge
	case http.StatusTooManyRequests:
		return ErrRateLimited
	}
	if e.Status >= 500 {
		return ErrUnavailable
	}
	return nil
}

// A CloseError is a close frame of the server's. It wraps what it means, such as
// [ErrDisconnected], where this package has a name for that.
type CloseError struct {
	Code   int    // docs/protocol.md lists them; 1005 for a frame without one
	Reason string // for people
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("the server closed the connection (%d)", e.Code)
	}
	return fmt.Sprintf("the server closed the connection (%d, %s)", e.Code, e.Reason)
}

// Unwrap is the kind of the error.
func (e *CloseError) Unwrap() error {
	switch e.Code {
	case closeTokenExpired:
		return ErrUnauthenticated
	case closeDisconnected:
		return ErrDisconnected
	case closeReplaced:
		return ErrReplaced
	case closeTooFast:
		return ErrRateLimited
	case closeTooLarge:
		return ErrTooLarge
	case closeProtocol, closeUnsupported, closeNotUTF8:
		return ErrInvalid
	}
	return nil
}

// Close codes, of RFC 6455 and of the service.
const (
	closeNormal       = 1000
	closeProtocol     = 1002
	closeUnsupported  = 1003
	closeNotUTF8      = 1007
	closeTooLarge     = 1009
	closeTokenExpired = 4001
	closeDisconnected = 4002
	closeReplaced     = 4004
	closeTooFast      = 4005
)

// kindOf is what a code of an error event means.
func kindOf(code string) error {
	switch code {
	case wire.CodeForbidden:
		return ErrForbidden
	case wire.CodeInvalid:
		return ErrInvalid
	case wire.CodeTooLarge:
		return ErrTooLarge
	case wire.CodeRateLimited:
		return ErrRateLimited
	case wire.CodeNotJoined:
		return ErrNotJoined
	case wire.CodeUnavailable:
		return ErrUnavailable
	}
	return fmt.Errorf("client: refused (%s)", printable(code))
}

// printable is a server's text as it can be shown in a line: no control
// characters, not too long.
func printable(s string) string {
	const most = 300
	b := make([]rune, 0, min(len(s), most))
	for _, r := range s {
		if len(b) == most {
			return string(b) + "…"
		}
		if r < ' ' || r >= 0x7F && r < 0xA0 || r == '\u2028' || r == '\u2029' {
			r = ' '
		}
		b = append(b, r)
	}
	return string(b)
}
