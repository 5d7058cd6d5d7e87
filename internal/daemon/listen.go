package daemon

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// listen binds addr. The host "localhost" is this machine by either of its
// addresses, 127.0.0.1 first and ::1 after it, on one port: what a client takes
// that name for is its own affair, and nobody else may sit on the other one.
// Where a machine has only one of the two, that is all.
func listen(ctx context.Context, addr string) ([]net.Listener, error) {
	var lc net.ListenConfig
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host != "localhost" {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	}

	// A port that the system picked for the first may be somebody's at the second.
	const tries = 10
	for try := 1; ; try++ {
		listeners, err := listenLoopback(ctx, &lc, port)
		if err == nil {
			return listeners, nil
		}
		if port != "0" || try == tries || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
}

func listenLoopback(ctx context.Context, lc *net.ListenConfig, port string) ([]net.Listener, error) {
	l4, err4 := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", port))
	if denied(err4) {
		return nil, err4
	}
	if err4 == nil {
		_, port, _ = net.SplitHostPort(l4.Addr().String())
	}
	l6, err6 := lc.Listen(ctx, "tcp6", net.JoinHostPort("::1", port))
	switch {
	case err4 == nil && err6 == nil:
		return []net.Listener{l4, l6}, nil
	case err4 == nil && denied(err6):
		l4.Close()
		return nil, err6
	case err4 == nil:
		return []net.Listener{l4}, nil
	case err6 == nil:
		return []net.Listener{l6}, nil
	default:
		return nil, err4
	}
}

// denied reports whether an address exists but is not to be had.
func denied(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES)
}
