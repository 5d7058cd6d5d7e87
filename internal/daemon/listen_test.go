package daemon

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// hasIPv6 reports whether this machine has a ::1.
func hasIPv6(t *testing.T) bool {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func TestLocalhostIsBothLoopbackAddressesOnOnePort(t *testing.T) {
	listeners, err := listen(t.Context(), "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		defer l.Close()
	}
	first := listeners[0].Addr().(*net.TCPAddr)
	if first.IP.String() != "127.0.0.1" || first.Port == 0 {
		t.Errorf("the first address is %v", first)
	}
	if !hasIPv6(t) {
		if len(listeners) != 1 {
			t.Errorf("%d listeners without IPv6", len(listeners))
		}
		return
	}
	if len(listeners) != 2 {
		t.Fatalf("%d listeners, want 2", len(listeners))
	}
	second := listeners[1].Addr().(*net.TCPAddr)
	if second.IP.String() != "::1" || second.Port != first.Port {
		t.Errorf("the second address is %v, the first %v", second, first)
	}
}

func TestLocalhostIsTakenWhenEitherAddressIs(t *testing.T) {
	for name, addr := range map[string]string{"IPv4": "127.0.0.1:0", "IPv6": "[::1]:0"} {
		t.Run(name, func(t *testing.T) {
			if name == "IPv6" && !hasIPv6(t) {
				t.Skip("no IPv6 here")
			}
			taken, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			_, port, _ := net.SplitHostPort(taken.Addr().String())
			listeners, err := listen(t.Context(), "localhost:"+port)
			for _, l := range listeners {
				l.Close()
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("error %v, want address in use", err)
			}
		})
	}
}
