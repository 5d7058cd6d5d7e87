package main

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// line is a way to a server that a test can break, for one of the nodes alone.
type line struct {
	addr   string       // to go by
	passed atomic.Int64 // how often something went by, either way

	mu    sync.Mutex // guards what follows
	dead  bool       // who connects is turned away
	mute  bool       // who connects gets no answer
	links map[*link]bool
}

// link is a connection by way of a line.
type link struct {
	way       *line
	near, far net.Conn
	mute      atomic.Bool   // what comes goes no further
	ended     chan struct{} // closed when it is cut
}

// to makes a line to an address.
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
			<-k.ended // nobody hears that either
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

// strand lets nothing through the connections that there are, as when the host at
// their end is gone without a word. New ones work.
func (w *line) strand() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range w.links {
		k.mute.Store(true)
	}
}

// hush lets nothing through.
func (w *line) hush() {
	w.strand()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = true
}

// cut breaks the connections, with what they hold, and lets no other be made.
func (w *line) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for k := range w.links {
		k.cut()
	}
	clear(w.links)
}

// mend lets new connections be made, and work.
func (w *line) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead, w.mute = false, false
}
