package connlimit

import (
	"io"
	"net/http"
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
		if r.Header.Get("Upgrade") == "" { // a handler that takes over finds the server's own
			w = &writer{w, l, c}
		}
		next.ServeHTTP(w, r)
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

// writer is a response's, during each write of which the connection waits. All
// else that a ResponseWriter may be able to do is reached through Unwrap, by
// [http.ResponseController].
type writer struct {
	http.ResponseWriter
	limiter *Limiter
	conn    *conn
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) Write(p []byte) (int, error) {
	w.limiter.waitingAgain(w.conn)
	defer w.limiter.working(w.conn)
	return w.ResponseWriter.Write(p)
}

// Flush sends what was written, during which the connection waits.
func (w *writer) Flush() {
	w.limiter.waitingAgain(w.conn)
	defer w.limiter.working(w.conn)
	_ = http.NewResponseController(w.ResponseWriter).Flush() // as of http.Flusher, without an error
}
