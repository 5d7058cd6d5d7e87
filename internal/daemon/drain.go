package daemon

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// firstRequestTime is how long drain waits for the first request of a connection that
// was just accepted. A proxy opens a connection when it has a request to send.
const firstRequestTime = time.Second

// drainServer is an HTTP server that stops without losing a request. A proxy must not
// repeat a request that the server may have read, and [http.Server.Shutdown] loses some:
// those read but not yet begun, those on connections not yet accepted, and those sent
// over a kept connection just as the server closes it.
type drainServer struct {
	*http.Server

	tls       bool // serve TLS
	leaving   atomic.Bool
	listeners []*drainListener // appended by serve, before drain
	accepting sync.WaitGroup   // one for each listener that is served

	mu   sync.Mutex                  // guards busy
	busy map[net.Conn]http.ConnState // the connections in StateNew and StateActive
}

// newDrainServer wraps the Handler and the ConnState of srv, which must be complete.
func newDrainServer(srv *http.Server) *drainServer {
	d := &drainServer{Server: srv, tls: srv.TLSConfig != nil, busy: make(map[net.Conn]http.ConnState)}
	srv.Handler = d.closeConnections(srv.Handler)
	next := srv.ConnState
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		if next != nil {
			next(conn, state)
		}
		d.note(conn, state)
	}
	return d
}

// closeConnections ends each connection with its next answer once the server is leaving.
// A handshake that succeeds has its own Connection header.
func (d *drainServer) closeConnections(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// leave starts to end connections with their next answer. The server still accepts and
// answers as before: proxies get time to send their requests elsewhere.
func (d *drainServer) leave() { d.leaving.Store(true) }

// note keeps busy up to date.
func (d *drainServer) note(conn net.Conn, state http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if state == http.StateNew || state == http.StateActive {
		d.busy[conn] = state
	} else {
		delete(d.busy, conn)
	}
}

// serve accepts connections from l, as wrap returns it, until the server stops. It
// returns at once; the goroutine calls done with the error of Serve.
func (d *drainServer) serve(l net.Listener, wrap func(net.Listener) net.Listener, done func(error)) {
	last := &drainListener{Listener: l}
	d.listeners = append(d.listeners, last)
	l = wrap(last)
	d.accepting.Go(func() {
		if d.tls {
			done(d.ServeTLS(l, "", ""))
		} else {
			done(d.Serve(l))
		}
	})
}

// drain closes the listeners, waits for the requests under way, and shuts the server
// down. The end of ctx cuts it short; the error is then that of Shutdown.
func (d *drainServer) drain(ctx context.Context) error {
	d.drainListeners(ctx)
	d.awaitRequests(ctx)
	return d.Shutdown(ctx)
}

// drainListeners accepts the connections that wait in the kernel, closes the listeners,
// and returns when the server has taken these connections over. A full limiter may keep
// it from doing so, so the wait is bounded.
func (d *drainServer) drainListeners(ctx context.Context) {
	for _, l := range d.listeners {
		l.drain()
	}
	accepted := make(chan struct{})
	go func() { // ends with Shutdown at the latest
		defer close(accepted)
		d.accepting.Wait()
	}()
	timer := time.NewTimer(firstRequestTime)
	defer timer.Stop()
	select {
	case <-accepted:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// awaitRequests returns when all requests are answered, or when ctx ends. The listeners
// must be closed, and the server leaving.
func (d *drainServer) awaitRequests(ctx context.Context) {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	began := time.Now()
	for {
		active, fresh := d.count()
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

// count returns how many connections have an unanswered request, and how many have not
// sent their first one.
func (d *drainServer) count() (active, fresh int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, state := range d.busy {
		if state == http.StateActive {
			active++
		} else {
			fresh++
		}
	}
	return active, fresh
}
