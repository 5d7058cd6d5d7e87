// Package connlimit bounds the connections of an HTTP server that are not yet, or
// never will be, WebSockets: those that strangers can hold without a token, each
// with buffers, a goroutine and a file.
//
// A connection waits while the server waits for its peer: for a TLS handshake, a
// request, more of a body, or for room to send an answer. Waiting connections are
// bounded in all, and connections, waiting or not, for each address. One too many
// takes the place of the one that has waited longest. A connection that a handler
// takes over is counted no longer.
package connlimit

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// Grace is how long a connection may wait, at least, before another takes its
// place: longer than peers in good faith need for a step, on slow lines, too.
const Grace = 2 * time.Second

// Limits are what a [Limiter] bounds.
type Limits struct {
	// PerAddress bounds the connections of an IPv4 address, or of a /64 of IPv6,
	// which is one customer's. 0 is no limit.
	PerAddress int
	// Waiting bounds those that wait for their peer, of all addresses. 0 is no limit.
	Waiting int
	// Exempt says for whom PerAddress does not count, such as a proxy, which all
	// clients come by. It may be nil.
	Exempt func(netip.Addr) bool
}

// Limiter bounds the connections of one server, by any number of listeners.
type Limiter struct {
	limits Limits

	mu        sync.Mutex // guards what follows; not held while closing connections
	conns     map[net.Conn]*conn
	addresses map[netip.Prefix]*address
	waiting   list.List     // of *conn, those that have waited longest first
	room      chan struct{} // has room for one; sent to when waiting gets shorter
	refused   uint64
}

// address is what is known of the connections of one address.
type address struct {
	conns   int
	waiting list.List // as the Limiter's, of this address alone
}

// conn is a connection. Its fields are guarded by the Limiter's mu.
type conn struct {
	net     net.Conn
	from    netip.Prefix // the zero Prefix: exempt
	address *address
	since   time.Time     // when it began to wait
	inAll   *list.Element // nil: it does not wait
	inOwn   *list.Element
	gone    bool // closed, or taken over
}

// New makes a Limiter.
func New(limits Limits) *Limiter {
	return &Limiter{
		limits:    limits,
		conns:     make(map[net.Conn]*conn),
		addresses: make(map[netip.Prefix]*address),
		room:      make(chan struct{}, 1),
	}
}

// Refused is how many connections were closed for being too many, so far.
func (l *Limiter) Refused() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Listener accepts what the limits allow.
func (l *Limiter) Listener(inner net.Listener) net.Listener {
	return &listener{Listener: inner, limiter: l, closed: make(chan struct{})}
}

type listener struct {
	net.Listener
	limiter *Limiter
	close   sync.Once
	closed  chan struct{}
}

func (l *listener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Accept implements [net.Listener]. While all places are taken by connections that
// have not waited for long, the next ones are left to the kernel.
func (l *listener) Accept() (net.Conn, error) {
	for {
		l.limiter.awaitRoom(l.closed)
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.limiter.admit(c) {
			// A flood of connections waits in the kernel, where it delays nobody: each is
			// accepted when those before it, and all else that is ready, had their turn.
			runtime.Gosched()
			return c, nil
		}
		cut(c)
	}
}

// cut closes a connection without waiting for what its peer may still take.
func cut(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // an option of every TCP connection
	}
	_ = c.Close() // nobody waits for it
}

// awaitRoom returns when one more connection may wait, or when stop is closed.
func (l *Limiter) awaitRoom(stop <-chan struct{}) {
	for {
		victim, wait := l.makeRoom()
		if victim != nil {
			cut(victim)
		}
		if wait == 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.room:
		case <-stop:
		}
		timer.Stop()
		select {
		case <-stop:
			return
		default:
		}
	}
}

// makeRoom says how long to wait before there may be room for one more. When there
// is some because a connection had waited for long enough, that one is to be cut.
func (l *Limiter) makeRoom() (victim net.Conn, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limits.Waiting == 0 || l.waiting.Len() < l.limits.Waiting {
		return nil, 0
	}
	oldest := l.waiting.Front().Value.(*conn)
	if wait := Grace - time.Since(oldest.since); wait > 0 {
		return nil, wait
	}
	l.forget(oldest)
	l.refused++
	return oldest.net, 0
}

// admit counts a new connection, or reports that its address has too many. The one
// of them that has waited longest makes room where it has waited for long enough.
func (l *Limiter) admit(c net.Conn) bool {
	l.mu.Lock()
	k := &conn{net: c}
	var victim net.Conn
	if from, ok := l.counted(c.RemoteAddr()); ok {
		a := l.addresses[from]
		if a == nil {
			a = new(address)
			l.addresses[from] = a
		}
		if a.conns >= l.limits.PerAddress {
			l.refused++
			oldest := a.waiting.Front()
			if oldest == nil || time.Since(oldest.Value.(*conn).since) < Grace {
				l.mu.Unlock()
				return false
			}
			victim = oldest.Value.(*conn).net
			l.forget(oldest.Value.(*conn))
			l.addresses[from] = a // it was forgotten with its only connection
		}
		a.conns++
		k.from, k.address = from, a
	}
	l.conns[c] = k
	l.wait(k)
	l.mu.Unlock()
	if victim != nil {
		cut(victim)
	}
	return true
}

// counted is what a connection is counted by, if it is.
func (l *Limiter) counted(remote net.Addr) (netip.Prefix, bool) {
	tcp, ok := remote.(*net.TCPAddr)
	if l.limits.PerAddress == 0 || !ok {
		return netip.Prefix{}, false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if !ip.IsValid() || l.limits.Exempt != nil && l.limits.Exempt(ip) {
		return netip.Prefix{}, false
	}
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	from, err := ip.Prefix(bits)
	return from, err == nil
}

// wait begins the waiting of a connection, or begins it anew. Requires l.mu.
func (l *Limiter) wait(c *conn) {
	if c.gone {
		return
	}
	c.since = time.Now()
	if c.inAll != nil {
		l.waiting.MoveToBack(c.inAll)
		if c.address != nil {
			c.address.waiting.MoveToBack(c.inOwn)
		}
		return
	}
	c.inAll = l.waiting.PushBack(c)
	if c.address != nil {
		c.inOwn = c.address.waiting.PushBack(c)
	}
}

// serve ends the waiting of a connection. Requires l.mu.
func (l *Limiter) serve(c *conn) {
	if c.inAll == nil {
		return
	}
	l.waiting.Remove(c.inAll)
	if c.address != nil {
		c.address.waiting.Remove(c.inOwn)
	}
	c.inAll, c.inOwn = nil, nil
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// forget counts a connection no longer. Requires l.mu.
func (l *Limiter) forget(c *conn) {
	if c.gone {
		return
	}
	l.serve(c)
	c.gone = true
	delete(l.conns, c.net)
	if c.address == nil {
		return
	}
	if c.address.conns--; c.address.conns == 0 {
		delete(l.addresses, c.from)
	}
}

// below is the connection that was accepted, which TLS may lie on.
func below(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// Watch has a server tell the Limiter of its connections, which have to come by
// way of Listener. It is called once, before the server is used.
func (l *Limiter) Watch(srv *http.Server) {
	srv.Handler = l.handler(srv.Handler)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		l.mu.Lock()
		defer l.mu.Unlock()
		return context.WithValue(ctx, connKey{}, l.conns[below(c)])
	}
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		l.mu.Lock()
		defer l.mu.Unlock()
		k := l.conns[below(c)]
		switch {
		case k == nil:
		case state == http.StateIdle, state == http.StateActive:
			l.wait(k)
		case state == http.StateHijacked, state == http.StateClosed:
			l.forget(k)
		}
	}
}

// connKey is the key of the *conn in the context of a request.
type connKey struct{}
