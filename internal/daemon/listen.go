package daemon

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// listen binds addr. The host "localhost" is 127.0.0.1 and ::1, in this order, on one
// port: clients may resolve the name to either, and no other program may listen on the
// second one. On a machine with only one of the two addresses it binds that one.
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

	// The port that the system picked on 127.0.0.1 may be taken on ::1.
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

// denied reports whether an address exists but cannot be bound.
func denied(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES)
}
