package main

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// line is a proxy between one node and a server. A test can break it.
type line struct {
	addr   string       // to connect to instead of the server
	passed atomic.Int64 // reads that were forwarded, in both directions

	mu    sync.Mutex // guards the fields below
	dead  bool       // new connections are closed
	mute  bool       // new connections get no answer
	links map[*link]bool
}

// link is a connection through a line.
type link struct {
	way       *line
	near, far net.Conn
	mute      atomic.Bool   // data is dropped
	ended     chan struct{} // closed when it is cut
}

// to starts a line to an address.
func to(t *testing.T, addr string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &line{addr: l.Addr().String(), links: make(map[*link]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				near.Close()
				continue
			}
			k := &link{way: w, near: near, far: far, ended: make(chan struct{})}
			w.keep(k)
			serving.Go(func() { k.copy(far, near) })
			serving.Go(func() { k.copy(near, far) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.cut()
		serving.Wait()
	})
	return w
}

func (w *line) keep(k *link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k.mute.Store(w.mute)
	if w.dead {
		k.cut()
		return
	}
	w.links[k] = true
}

func (k *link) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		k.way.passed.Add(1)
		if k.mute.Load() {
			<-k.ended // the end is not forwarded either
			return
		}
		if _, bad := to.Write(buf[:n]); bad != nil || err != nil {
			return
		}
	}
}

func (k *link) cut() {
	close(k.ended)
	k.near.Close()
	k.far.Close()
}

// strand stops all traffic of the open connections without closing them, as if the host at
// the other end had vanished. New connections work.
func (w *line) strand() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range w.links {
		k.mute.Store(true)
	}
}

// hush stops all traffic, also of new connections.
func (w *line) hush() {
	w.strand()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = true
}

// cut closes all connections, with the data in them, and accepts no new ones.
func (w *line) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for k := range w.links {
		k.cut()
	}
	clear(w.links)
}

// mend accepts new connections again.
func (w *line) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead, w.mute = false, false
}
