package connlimit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"
)

// handler marks a connection as served while next runs, and as waiting during each read
// and write of the peer.
func (l *Limiter) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(*conn)
		if c == nil {
			next.ServeHTTP(w, r)
			return
		}
		l.markServed(c)
		defer l.markWaiting(c)
		if r.Body != http.NoBody {
			// A copy: the server looks at its own request to see that the body was not read
			// to the end. Then it does not close the connection at once, which would reset
			// it before the client has read the answer.
			r = r.WithContext(r.Context())
			r.Body = &body{r.Body, l, c}
		}
		next.ServeHTTP(&writer{w, http.NewResponseController(w), l, c}, r)
	})
}

func (l *Limiter) markServed(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve(c)
}

func (l *Limiter) markWaiting(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait(c)
}

// body is the body of a request. The connection counts as waiting during each read.
type body struct {
	io.ReadCloser
	limiter *Limiter
	conn    *conn
}

func (b *body) Read(p []byte) (int, error) {
	b.limiter.markWaiting(b.conn)
	defer b.limiter.markServed(b.conn)
	return b.ReadCloser.Read(p)
}

// writer is a ResponseWriter. The connection counts as waiting during each write. It
// forwards what [http.ResponseController] can do but has no Unwrap: the handler of a
// WebSocket would use it to send the 101 at once, apart from the first frames, and could
// not refuse the handshake afterwards.
type writer struct {
	http.ResponseWriter
	server  *http.ResponseController // of the ResponseWriter
	limiter *Limiter
	conn    *conn
}

func (w *writer) Write(p []byte) (int, error) {
	w.limiter.markWaiting(w.conn)
	defer w.limiter.markServed(w.conn)
	return w.ResponseWriter.Write(p)
}

// FlushError sends what was written. The connection counts as waiting meanwhile.
func (w *writer) FlushError() error {
	w.limiter.markWaiting(w.conn)
	defer w.limiter.markServed(w.conn)
	return w.server.Flush()
}

func (w *writer) Flush() { _ = w.FlushError() } // implements http.Flusher

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.server.Hijack() }
func (w *writer) SetReadDeadline(t time.Time) error            { return w.server.SetReadDeadline(t) }
func (w *writer) SetWriteDeadline(t time.Time) error           { return w.server.SetWriteDeadline(t) }
func (w *writer) EnableFullDuplex() error                      { return w.server.EnableFullDuplex() }
