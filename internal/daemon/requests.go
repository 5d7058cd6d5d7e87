package daemon

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// firstRequestTime is how long a connection that was just accepted is waited for at the
// end: a proxy opens one for a request that it has.
const firstRequestTime = time.Second

// requests are those under way at a server. [http.Server.Shutdown] drops a request that
// it has read and not begun to answer, which the one who sent it must not repeat.
type requests struct {
	mu   sync.Mutex
	busy map[net.Conn]http.ConnState // StateNew and StateActive
}

// watch counts the requests of a server, beside what its ConnState does already.
func (r *requests) watch(srv *http.Server) {
	r.busy = make(map[net.Conn]http.ConnState)
	before := srv.ConnState
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		if before != nil {
			before(conn, state)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if state == http.StateNew || state == http.StateActive {
			r.busy[conn] = state
		} else {
			delete(r.busy, conn)
		}
	}
}

// count is how many connections have a request that is not answered, and how many have
// yet to send their first one.
func (r *requests) count() (active, fresh int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, state := range r.busy {
		if state == http.StateActive {
			active++
		} else {
			fresh++
		}
	}
	return active, fresh
}

// finish waits until all requests are answered, when no connection is accepted any more
// and none is kept for another request. ctx bounds that.
func (r *requests) finish(ctx context.Context) {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	began := time.Now()
	for {
		active, fresh := r.count()
		if active == 0 && (fresh == 0 || time.Since(began) > firstRequestTime) {
			return
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}
