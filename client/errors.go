package client

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/reto10/chat/internal/wire"
)

// Kinds of errors, for [errors.Is]. They are separate from package chat's, so that a client
// does not depend on the server.
var (
	// ErrUnauthenticated: the password is wrong, or the token is invalid and there is no
	// other (401, close code 4001).
	ErrUnauthenticated = errors.New("client: unauthenticated")
	// ErrForbidden: the user may not do this (403, code "forbidden").
	ErrForbidden = errors.New("client: forbidden")
	// ErrInvalid: an argument is invalid, or the server rejected a request or command as
	// invalid (400, code "invalid").
	ErrInvalid = errors.New("client: invalid")
	// ErrNotFound: the server has no such route; often the URL is not that of a chat
	// service (404).
	ErrNotFound = errors.New("client: not found")
	// ErrTooLarge: the content exceeds the server's limit (413, code "too_large", close
	// code 1009), or the request line or a header exceeds a proxy's limit (414, 431).
	ErrTooLarge = errors.New("client: too large")
	// ErrRateLimited: too many commands, logins, handshakes or sockets of the user; wait
	// before the next attempt (429, code "rate_limited", close code 4005). A [Client] that
	// has connected once waits and retries by itself.
	ErrRateLimited = errors.New("client: rate limited")
	// ErrNotJoined: the client is not in the channel that it should leave (code
	// "not_joined").
	ErrNotJoined = errors.New("client: channel not joined")
	// ErrUnavailable: the server cannot do this now (503 and other 5xx, code
	// "unavailable"). A broadcast may still have been stored.
	ErrUnavailable = errors.New("client: unavailable")

	// ErrUnconfirmed: a broadcast was sent, and the connection or the caller's context
	// ended before the answer. The message may have been stored; sending it again may
	// publish it twice.
	ErrUnconfirmed = errors.New("client: unconfirmed")
	// ErrDisconnected: an admin disconnected the user (close code 4002).
	ErrDisconnected = errors.New("client: disconnected by an admin")
	// ErrReplaced: a newer socket of this user replaced this one, or the user has too many
	// sockets on other nodes (close code 4004). On one node the handshake fails instead, with
	// ErrRateLimited (429).
	ErrReplaced = errors.New("client: replaced by a newer socket of this user")
	// ErrClosed: [Client.Close] was called.
	ErrClosed = errors.New("client: closed")
	// ErrBehind: the consumer of [Client.Events] is too slow, and the client drops events.
	// It gets the dropped messages again once the consumer has emptied the queue. Only
	// [Lost] contains this error.
	ErrBehind = errors.New("client: the consumer is behind")
	// ErrProtocol: the server violated the protocol.
	ErrProtocol = errors.New("client: protocol error")
	// ErrConsumed: another loop over [Client.Events] has not ended.
	ErrConsumed = errors.New("client: the events are being consumed already")
)

// StatusError is an HTTP answer that rejects a request. It wraps the matching kind, such as
// [ErrForbidden], if there is one.
type StatusError struct {
	Status     int           // the HTTP status
	Detail     string        // the server's explanation for people; may be empty
	RetryAfter time.Duration // how long the server asks to wait, 0 if it does not say
}

func (e *StatusError) Error() string {
	text := http.StatusText(e.Status)
	switch {
	case e.Detail != "":
		text = e.Detail
	case e.Status == http.StatusRequestURITooLong, e.Status == http.StatusRequestHeaderFieldsTooLarge:
		text += ": the address or the token is longer than a proxy accepts"
	}
	return fmt.Sprintf("status %d: %s", e.Status, text)
}

// Unwrap returns the kind of the error, nil if there is none.
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

// CloseError is a close frame from the server. It wraps the matching kind, such as
// [ErrDisconnected], if there is one.
type CloseError struct {
	Code   int    // docs/protocol.md lists the codes; 1005 for a frame without one
	Reason string // for people
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("the server closed the connection (%d)", e.Code)
	}
	return fmt.Sprintf("the server closed the connection (%d, %s)", e.Code, e.Reason)
}

// Unwrap returns the kind of the error, nil if there is none.
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

// Close codes of RFC 6455 and of the service.
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

// kindOf returns the kind for the code of an error event.
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

// printable returns a server's text for a log line or an error: control characters become
// spaces, and a long text is cut.
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
