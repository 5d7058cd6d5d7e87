package webtest

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
)

// proxy is a TCP proxy between a browser and a server. A test can cut it.
type proxy struct {
	URL string

	target string

	mu    sync.Mutex
	down  bool
	mute  bool // what the server says is dropped
	conns map[net.Conn]bool
}

// startProxy passes TCP on to the server at an address such as https://127.0.0.1:443.
func startProxy(t testing.TB, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{
		URL:    "https://" + l.Addr().String(),
		target: strings.TrimPrefix(server, "https://"),
		conns:  make(map[net.Conn]bool),
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.pass(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		serving.Wait()
	})
	return p
}

func (p *proxy) pass(client net.Conn) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", p.target, chatdtest.Patience)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	if p.down {
		p.mu.Unlock()
		return
	}
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	}()
	var copying sync.WaitGroup
	for _, way := range []struct {
		to   io.Writer
		from net.Conn
	}{{writer(func(b []byte) (int, error) { return p.answer(client, b) }), server}, {server, client}} {
		copying.Go(func() {
			io.Copy(way.to, way.from) // its end is that of the connection
			client.Close()
			server.Close()
		})
	}
	copying.Wait()
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func (p *proxy) answer(client net.Conn, b []byte) (int, error) {
	p.mu.Lock()
	mute := p.mute
	p.mu.Unlock()
	if mute {
		return len(b), nil
	}
	return client.Write(b)
}

// silence drops what the server says, until the next mend.
func (p *proxy) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = true
}

// cut ends every connection, and each new one at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for conn := range p.conns {
		conn.Close()
	}
}

// mend lets connections through again.
func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.mute = false, false
}
