package chat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/reto10/chat/internal/account"
	"github.com/reto10/chat/internal/admission"
	"github.com/reto10/chat/internal/connset"
	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/internal/wsconn"
)

const (
	// openingWait is how long a handshake waits for its turn before it is rejected.
	openingWait = 10 * time.Second
	// waitingFactor × WithOpening handshakes may wait; others are rejected at once.
	// 24 × 512 is enough for the 10,000 clients of a failed node.
	waitingFactor = 24
	// slowAfter is how long after its welcome a socket still counts as opening during a
	// replay. A slow client must not hold up others.
	slowAfter = time.Second
)

// openingShare: one user may have 1/openingShare of the sockets that open at once.
const openingShare = 8

// errBusy rejects a handshake that waited too long for its turn, or that would wait with
// too many others.
var errBusy = errors.New("too many sockets are being opened")

// enter waits until the user may open one more socket. The caller must call leave when the
// socket is open or has failed; further calls do nothing.
func (s *Service) enter(ctx context.Context, user string) (leave func(), err error) {
	switch err := s.opening.Enter(ctx, user); {
	case err == nil:
		return sync.OnceFunc(func() { s.opening.Leave(user) }), nil
	case errors.Is(err, admission.ErrStopped):
		return nil, wrapUnavailable("opening a socket", connset.ErrDraining)
	default: // too many wait, it took too long, or the client has gone
		return nil, wrapUnavailable("opening a socket", errors.Join(errBusy, err))
	}
}

// retryBusy returns a random Retry-After for a client that was rejected as busy, so that
// such clients do not retry all at once.
func retryBusy() time.Duration {
	return time.Second + rand.N(retryLater-time.Second)
}

// countHandshake counts a handshake of a user. It returns an error if there were too many.
func (s *Service) countHandshake(of *account.Account, token string) error {
	now := time.Now()
	wait, ok := of.Connect(now)
	if ok {
		return nil
	}
	s.rejectedTokens.Refuse(token, now, wait)
	return &retryableError{errTooOften, wait}
}

// wouldReject returns the error that a handshake of the user would get now, nil for none.
// It does not count as a handshake.
func (s *Service) wouldReject(of *account.Account) error {
	now := time.Now()
	if wait := of.ConnectWait(now); wait > 0 {
		return &retryableError{errTooOften, wait}
	}
	if wait, full := of.Full(now); full {
		return tooManySockets(wait)
	}
	return nil
}

// tooManySockets returns the error for a user at WithSocketsPerUser. wait is the
// Retry-After; 0 means unknown, then it is retryLater.
func tooManySockets(wait time.Duration) error {
	if wait <= 0 {
		wait = retryLater
	}
	return &retryableError{errTooMany, wait}
}

// lateRejection returns a function that rejects a handshake after the connection was
// hijacked. The function reports false if the answer was already sent. Each answer has the
// given headers.
func (s *Service) lateRejection(conn *wsconn.Conn, header http.Header, of *account.Account) func(error) bool {
	return func(err error) bool {
		a := answered{header: header.Clone()}
		kind, detail := explain(err)
		if kind.err == ErrUnavailable {
			of.Unconnect(time.Now())
			setRetryAfter(&a, retryBusy())
		} else {
			setRetryAfter(&a, waitAfter(err))
		}
		problem.Write(&a, kind.status, detail)
		late := conn.Refuse(&http.Response{
			StatusCode: a.status, Header: a.header,
			Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()),
		})
		if late {
			s.counts.refused.add(whyRefused(err))
		}
		return late
	}
}

// answered is an [http.ResponseWriter] that keeps the answer in memory.
type answered struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answered) Header() http.Header         { return a.header }
func (a *answered) WriteHeader(status int)      { a.status = status }
func (a *answered) Write(p []byte) (int, error) { return a.body.Write(p) }
