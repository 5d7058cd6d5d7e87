package connlimit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"
)

// handler notes when the server works for a connection rather than waiting for it.
func (l *Limiter) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(*conn)
		if c == nil {
			next.ServeHTTP(w, r)
			return
		}
		l.working(c)
		defer l.waitingAgain(c)
		if r.Body != http.NoBody {
			r.Body = &body{r.Body, l, c}
		}
		next.ServeHTTP(&writer{w, http.NewResponseController(w), l, c}, r)
	})
}

func (l *Limiter) working(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve(c)
}

func (l *Limiter) waitingAgain(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait(c)
}

// body is a request's, during each read of which the connection waits.
type body struct {
	io.ReadCloser
	limiter *Limiter
	conn    *conn
}

func (b *body) Read(p []byte) (int, error) {
	b.limiter.waitingAgain(b.conn)
	defer b.limiter.working(b.conn)
	return b.ReadCloser.Read(p)
}

// writer is a response's, during each write of which the connection waits. It forwards
// what [http.ResponseController] can do, and has no Unwrap: a WebSocket's handler would
// send the 101 through it at once, rather than together with what comes first, and
// could not refuse the handshake any more.
type writer struct {
	http.ResponseWriter
	server  *http.ResponseController // of the ResponseWriter
	limiter *Limiter
	conn    *conn
}

func (w *writer) Write(p []byte) (int, error) {
	w.limiter.waitingAgain(w.conn)
	defer w.limiter.working(w.conn)
	return w.ResponseWriter.Write(p)
}

// FlushError sends what was written, during which the connection waits.
func (w *writer) FlushError() error {
	w.limiter.waitingAgain(w.conn)
	defer w.limiter.working(w.conn)
	return w.server.Flush()
}

func (w *writer) Flush() { _ = w.FlushError() } // as of http.Flusher, without an error

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.server.Hijack() }
func (w *writer) SetReadDeadline(t time.Time) error            { return w.server.SetReadDeadline(t) }
func (w *writer) SetWriteDeadline(t time.Time) error           { return w.server.SetWriteDeadline(t) }
func (w *writer) EnableFullDuplex() error                      { return w.server.EnableFullDuplex() }
