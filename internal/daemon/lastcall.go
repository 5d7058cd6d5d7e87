package daemon

import (
	"net"
	"sync"
)

// lastCall is a listener that loses no connection when it ends. Closing one resets the
// connections that the kernel has completed and nobody has accepted: a proxy has sent
// its request over them by then, and must not send it elsewhere if it is a POST.
type lastCall struct {
	net.Listener

	mu    sync.Mutex
	ended bool
	rest  []net.Conn // accepted by end
}

// Accept returns those connections, too, once the listener has ended.
func (l *lastCall) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		return conn, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended || len(l.rest) == 0 {
		return nil, err
	}
	conn, l.rest = l.rest[0], l.rest[1:]
	return conn, nil
}

// end accepts what waits and closes the listener, with as little as can be between.
func (l *lastCall) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = acceptRest(l.Listener)
	l.ended = true
	l.Listener.Close() // Accept waits for the lock
}

// Close drops what is left.
func (l *lastCall) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.rest {
		conn.Close()
	}
	l.rest = nil
	return l.Listener.Close()
}
