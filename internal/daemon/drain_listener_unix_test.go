//go:build unix

package daemon

import (
	"io"
	"net"
	"testing"
)

// Connections that wait in the kernel when a listener drains are accepted all the same.
func TestADrainingListenerLosesNoConnection(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &drainListener{Listener: inner}
	defer l.Close()
	const n = 5
	var clients []net.Conn
	for range n {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, conn)
	}
	l.drain()
	if conn, err := net.Dial("tcp", inner.Addr().String()); err == nil {
		conn.Close()
		t.Error("it still accepts connections")
	}
	for i := range n {
		conn, err := l.Accept()
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Errorf("connection %d: %q, %v", i+1, got, err)
		}
		if _, err := io.WriteString(conn, "bye"); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	if conn, err := l.Accept(); err == nil {
		conn.Close()
		t.Error("it returns one connection too many")
	}
	for i, conn := range clients {
		if got, err := io.ReadAll(conn); string(got) != "bye" || err != nil {
			t.Errorf("client %d: %q, %v", i+1, got, err)
		}
	}
}
