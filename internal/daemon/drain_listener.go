package daemon

import (
	"net"
	"sync"
)

// drainListener is a listener that closes without losing a connection. Closing a plain
// listener resets the connections that the kernel has completed and the program has not
// accepted. A proxy has already sent its request over them, and must not repeat a POST.
type drainListener struct {
	net.Listener

	mu      sync.Mutex
	drained bool
	pending []net.Conn // accepted by drain, for Accept to return
}

// Accept returns the listener's next connection. After drain it returns the pending
// ones, then an error.
func (l *drainListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		return conn, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.drained || len(l.pending) == 0 {
		return nil, err
	}
	conn, l.pending = l.pending[0], l.pending[1:]
	return conn, nil
}

// drain accepts the connections that wait in the kernel, then closes the listener. The
// time between the two is as short as possible: a connection that comes then is reset.
func (l *drainListener) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.drained {
		return
	}
	l.pending = acceptPending(l.Listener)
	l.drained = true
	l.Listener.Close() // Accept fails now, and waits for l.mu
}

// Close closes the listener and the pending connections.
func (l *drainListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.pending {
		conn.Close()
	}
	l.pending = nil
	return l.Listener.Close()
}
