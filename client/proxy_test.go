package client_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/reto10/chat/test/pipenet"
)

// proxy is a TCP proxy. A test can break its connections.
type proxy struct {
	l       net.Listener
	passing sync.WaitGroup

	mu     sync.Mutex
	target string // "" refuses
	deaf   bool   // what the server says is not passed on any more
	conns  map[net.Conn]bool
}

// through makes a server's client connect through a proxy.
func through(t testing.TB, s *server) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: s.addr, conns: make(map[net.Conn]bool)}
	s.url = "https://" + l.Addr().String()
	p.passing.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.passing.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if target == "" || err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		p.passing.Go(func() { p.pass(server, client, false) })
		p.passing.Go(func() { p.pass(client, server, true) })
	}
}

func (p *proxy) pass(to, from net.Conn, said bool) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, from)
		p.mu.Unlock()
		to.Close()
		from.Close()
	}()
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		deaf := p.deaf && said
		p.mu.Unlock()
		if n > 0 && !deaf {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut closes all connections without a close frame.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = false
	for c := range p.conns {
		c.Close()
	}
}

// to forwards new connections to another address; "" refuses them.
func (p *proxy) to(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// deafen drops all data for the client, until the next cut.
func (p *proxy) deafen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
}

// pipes is a network of pipes whose connections can be broken.
type pipes struct {
	l *pipenet.Listener

	mu    sync.Mutex
	conns map[*pipe]bool
	mute  bool
}

func (p *pipes) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := p.l.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &pipe{conn, p}
	p.conns[c] = true
	return c, nil
}

// cut closes all connections without a close frame.
func (p *pipes) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Conn.Close()
	}
	clear(p.conns)
}

// silence drops all data of the servers from now on.
func (p *pipes) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = true
}

type pipe struct {
	net.Conn
	all *pipes
}

func (c *pipe) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		c.all.mu.Lock()
		mute := c.all.mute
		c.all.mu.Unlock()
		if err != nil || !mute {
			return n, err
		}
	}
}
