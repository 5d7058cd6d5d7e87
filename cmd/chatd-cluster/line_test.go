package main

import (
	"net"
	"sync"
	"testing"
)

// line is a way to a server that a test can break, for one of the nodes alone.
type line struct {
	addr string // to go by

	mu    sync.Mutex // guards what follows
	dead  bool       // who connects is turned away
	conns map[net.Conn]bool
	quiet chan struct{} // not nil: what comes stays here until it is closed
}

// to makes a line to an address.
func to(t *testing.T, addr string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &line{addr: l.Addr().String(), conns: make(map[net.Conn]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil || !w.keep(near, far) {
				near.Close()
				continue
			}
			serving.Go(func() { w.copy(far, near) })
			serving.Go(func() { w.copy(near, far) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.cut()
		serving.Wait()
	})
	return w
}

// keep takes both ends of a connection.
func (w *line) keep(near, far net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		far.Close()
		return false
	}
	w.conns[near], w.conns[far] = true, true
	return true
}

func (w *line) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		quiet := w.quiet
		w.mu.Unlock()
		if quiet != nil {
			<-quiet // and the connection is gone
			return
		}
		if _, bad := to.Write(buf[:n]); bad != nil || err != nil {
			return
		}
	}
}

// hush lets nothing through, and keeps the connections.
func (w *line) hush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = make(chan struct{})
}

// cut breaks the connections, with what they hold, and lets no other be made.
func (w *line) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	if w.quiet != nil {
		close(w.quiet)
		w.quiet = nil
	}
	for conn := range w.conns {
		conn.Close()
	}
	clear(w.conns)
}

// mend lets new connections be made.
func (w *line) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = false
}
