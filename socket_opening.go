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
	// openingWait is how long a handshake waits for its turn before it is refused.
	openingWait = 10 * time.Second
	// waitingPlaces is how many handshakes wait for each that is being opened: enough
	// for the 10,000 clients of a node that died. The others are refused at once.
	waitingPlaces = 24
	// slowAfter is how long after its welcome a socket that has not got all that it
	// missed gives its turn to another: its peer may read slowly.
	slowAfter = time.Second
)

// openingShare is the part of the sockets that are being opened that one user's may
// be: one in so many.
const openingShare = 8

// errBusy is why a handshake is refused that has waited for its turn in vain, or that
// found too many waiting.
var errBusy = errors.New("too many sockets are being opened")

// enter waits until one more socket of a user may be opened. leave, which may be called
// again, ends that; the caller sees to it that it is called.
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

// retryBusy is what a client that was refused as busy should wait before the next try:
// those that were refused together do not return together.
func retryBusy() time.Duration {
	return time.Second + rand.N(retryLater-time.Second)
}

// countHandshake counts a handshake of a user, or says that there were too many.
func (s *Service) countHandshake(of *account.Account, token string) error {
	now := time.Now()
	wait, ok := of.Connect(now)
	if ok {
		return nil
	}
	s.hasty.Refuse(token, now, wait)
	return &later{errTooOften, wait}
}

// wouldRefuse is why a handshake of the user's would be refused now. It counts none.
func (s *Service) wouldRefuse(of *account.Account) error {
	now := time.Now()
	if wait := of.ConnectWait(now); wait > 0 {
		return &later{errTooOften, wait}
	}
	if wait, full := of.Full(now); full {
		return tooManySockets(wait)
	}
	return nil
}

// tooManySockets refuses a socket of a user who has as many as may be. Where it is not
// known how long that is so, wait is 0: sockets whose peers are gone are noticed in time.
func tooManySockets(wait time.Duration) error {
	if wait <= 0 {
		wait = retryLater
	}
	return &later{errTooMany, wait}
}

// refuseLate returns what answers a handshake with an error whose connection is taken
// over already, as long as nothing was sent. header is what goes out with every answer.
func (s *Service) refuseLate(conn *wsconn.Conn, header http.Header, of *account.Account) func(error) bool {
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

// answered is an answer in memory.
type answered struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answered) Header() http.Header         { return a.header }
func (a *answered) WriteHeader(status int)      { a.status = status }
func (a *answered) Write(p []byte) (int, error) { return a.body.Write(p) }
