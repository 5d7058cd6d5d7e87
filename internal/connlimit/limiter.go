// Package connlimit limits the connections of an HTTP server that are not WebSockets. A
// stranger can hold these without a token, and each takes buffers, a goroutine and a file.
//
// A connection waits while the server waits for its peer: for a TLS handshake, a request,
// more of a body, or room to send an answer. The number of waiting connections is limited
// in all. The number of connections of each address is limited whether they wait or not.
// A connection beyond a limit replaces the one that has waited longest. A connection that
// becomes a WebSocket is no longer counted.
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

// Grace is how long a connection may wait before another may replace it. Honest peers
// need less for each step, even on slow lines.
const Grace = 2 * time.Second

// Limits are the limits of a [Limiter].
type Limits struct {
	// PerAddress limits the connections of an IPv4 address, or of an IPv6 /64, which one
	// customer has. 0 is no limit.
	PerAddress int
	// Waiting limits the waiting connections of all addresses together. 0 is no limit.
	Waiting int
	// Exempt reports whether PerAddress does not apply to an address, such as that of a
	// proxy, through which all clients connect. It may be nil.
	Exempt func(netip.Addr) bool
}

// Limiter limits the connections of one server, which may have several listeners. Its
// methods are safe for concurrent use.
type Limiter struct {
	limits Limits

	mu        sync.Mutex // guards what follows; not held while a connection is closed
	conns     map[net.Conn]*conn
	addresses map[netip.Prefix]*address
	waiting   list.List     // of *conn, the longest wait first
	room      chan struct{} // has room for one; sent to when waiting becomes shorter
	refused   uint64
}

// address holds the connections of one address.
type address struct {
	conns   int
	waiting list.List // as in the Limiter, of this address alone
}

// conn is a counted connection. The Limiter's mu guards its fields.
type conn struct {
	net       net.Conn
	from      netip.Prefix // the zero Prefix if no limit applies
	address   *address
	since     time.Time     // when it last began to wait
	inAll     *list.Element // in the Limiter's waiting; nil while it does not wait
	inAddress *list.Element // in the address's waiting
	gone      bool          // closed or hijacked: no longer counted
}

// New returns a Limiter.
func New(limits Limits) *Limiter {
	return &Limiter{
		limits:    limits,
		conns:     make(map[net.Conn]*conn),
		addresses: make(map[netip.Prefix]*address),
		room:      make(chan struct{}, 1),
	}
}

// Refused returns how many connections were closed so far because there were too many.
func (l *Limiter) Refused() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Listener wraps a listener of the server and accepts what the limits allow.
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

// Accept implements [net.Listener]. While all places are taken by connections that have
// not waited for [Grace], further ones wait in the kernel.
func (l *listener) Accept() (net.Conn, error) {
	for {
		l.limiter.awaitRoom(l.closed)
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.limiter.admit(c) {
			// Give way to everything else that is ready. A flood of connections then waits in
			// the kernel, where it delays nobody.
			runtime.Gosched()
			return c, nil
		}
		reset(c)
	}
}

// reset closes a connection and discards what its peer has not received.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // every TCP connection has this option
	}
	_ = c.Close()
}

// awaitRoom returns when there is room for one more waiting connection, or when stop is
// closed.
func (l *Limiter) awaitRoom(stop <-chan struct{}) {
	for {
		victim, wait := l.makeRoom()
		if victim != nil {
			reset(victim)
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

// makeRoom returns a wait of 0 when one more connection may wait, else for how long there
// is certainly no room. It may make room by giving up the connection that has waited
// longest, the victim, which the caller must reset.
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

// admit counts a new connection. If its address has too many, the new one replaces the
// connection of the address that has waited longest, provided that it has waited for
// [Grace]; otherwise admit returns false.
func (l *Limiter) admit(c net.Conn) bool {
	l.mu.Lock()
	k := &conn{net: c}
	var victim net.Conn
	if from, ok := l.limitedPrefix(c.RemoteAddr()); ok {
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
			l.addresses[from] = a // forget deletes an address with its last connection
		}
		a.conns++
		k.from, k.address = from, a
	}
	l.conns[c] = k
	l.wait(k)
	l.mu.Unlock()
	if victim != nil {
		reset(victim)
	}
	return true
}

// limitedPrefix returns the network whose connections a peer is counted with, and whether
// PerAddress applies to it.
func (l *Limiter) limitedPrefix(remote net.Addr) (netip.Prefix, bool) {
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

// wait starts the waiting of a connection, or restarts it. Requires l.mu.
func (l *Limiter) wait(c *conn) {
	if c.gone {
		return
	}
	c.since = time.Now()
	if c.inAll != nil {
		l.waiting.MoveToBack(c.inAll)
		if c.address != nil {
			c.address.waiting.MoveToBack(c.inAddress)
		}
		return
	}
	c.inAll = l.waiting.PushBack(c)
	if c.address != nil {
		c.inAddress = c.address.waiting.PushBack(c)
	}
}

// serve ends the waiting of a connection. Requires l.mu.
func (l *Limiter) serve(c *conn) {
	if c.inAll == nil {
		return
	}
	l.waiting.Remove(c.inAll)
	if c.address != nil {
		c.address.waiting.Remove(c.inAddress)
	}
	c.inAll, c.inAddress = nil, nil
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// forget stops counting a connection. Requires l.mu.
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

// accepted returns the connection that Accept returned, from under TLS.
func accepted(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// Watch makes a server report its connections to the Limiter. The server's listeners must
// come from Listener. Call it once, before the server serves; it replaces the server's
// ConnContext and ConnState.
func (l *Limiter) Watch(srv *http.Server) {
	srv.Handler = l.handler(srv.Handler)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		l.mu.Lock()
		defer l.mu.Unlock()
		return context.WithValue(ctx, connKey{}, l.conns[accepted(c)])
	}
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		l.mu.Lock()
		defer l.mu.Unlock()
		k := l.conns[accepted(c)]
		switch {
		case k == nil:
		case state == http.StateIdle, state == http.StateActive:
			l.wait(k)
		case state == http.StateHijacked, state == http.StateClosed:
			l.forget(k)
		}
	}
}

// connKey is the key of a request's *conn in its context.
type connKey struct{}
