package chat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat/internal/admission"
	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/internal/roster"
	"github.com/reto10/chat/internal/sharedread"
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

// errBusy is why a handshake is refused that has waited for its turn in vain, or that
// found too many waiting.
var errBusy = errors.New("too many sockets are being opened")

// enter waits until one more socket of a user may be opened. leave, which may be called
// again, ends that; the caller sees to it that it is called.
func (s *Service) enter(ctx context.Context, user string) (leave func(), err error) {
	switch err := s.opening.Enter(ctx, user); {
	case err == nil:
		return sync.OnceFunc(s.opening.Leave), nil
	case errors.Is(err, admission.ErrStopped):
		return nil, unavailable("opening a socket", roster.ErrDraining)
	default: // too many wait, it took too long, or the client has gone
		return nil, unavailable("opening a socket", errors.Join(errBusy, err))
	}
}

// retryBusy is what a client that was refused as busy should wait before the next try:
// those that were refused together do not return together.
func retryBusy() time.Duration {
	return time.Second + rand.N(retryLater-time.Second)
}

// refuseLate returns what answers a handshake with 503 whose connection is taken over
// already, as long as nothing was sent. header is what goes out with every answer.
func (s *Service) refuseLate(conn *wsconn.Conn, header http.Header) func() bool {
	return func() bool {
		a := answered{header: header.Clone()}
		setRetryAfter(&a, retryBusy())
		_, detail := explain(ErrUnavailable)
		problem.Write(&a, http.StatusServiceUnavailable, detail)
		late := conn.Refuse(&http.Response{
			StatusCode: a.status, Header: a.header,
			Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()),
		})
		if late {
			s.counts.refused.add("unavailable")
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

// historyRead is one reading of the history.
type historyRead struct {
	channel string
	after   Place
	limit   Limit
}

// sharedReads has sockets that missed the same messages share the reading of them.
type sharedReads struct {
	history History
	shared  *sharedread.Group[historyRead, []Message] // nil: the history is at hand
}

func newSharedReads(h History) *sharedReads {
	r := &sharedReads{history: h}
	if _, ok := h.(*MemoryHistory); !ok {
		r.shared = sharedread.New(portTimeout, func(ctx context.Context, read historyRead) ([]Message, error) {
			return h.After(ctx, read.channel, read.after, read.limit)
		})
	}
	return r
}

// after is the history's After. The messages are shared: the caller changes none.
func (r *sharedReads) after(ctx context.Context, channel string, p Place, limit Limit) ([]Message, error) {
	if r.shared == nil || strings.HasPrefix(channel, "@") { // a user has few sockets

		return r.history.After(ctx, channel, p, limit)
	}
	return r.shared.Do(ctx, historyRead{channel, p, limit})
}
