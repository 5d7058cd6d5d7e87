package chaos

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// Ports below those that the system gives to outgoing connections: a process that
// is restarted has to get its own again, with thousands of clients dialling.
const (
	firstPort = 20000
	lastPort  = 31999
)

var ports struct {
	mu   sync.Mutex
	next int // 0: none was given yet
}

// freePort finds a port of 127.0.0.1 that nobody listens on.
func freePort() (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.next == 0 {
		ports.next = firstPort + os.Getpid()*17%(lastPort-firstPort)
	}
	for range lastPort - firstPort {
		port := ports.next
		if ports.next++; ports.next > lastPort {
			ports.next = firstPort
		}
		l, err := net.Listen("tcp", local(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no port is free")
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// listens reports whether somebody takes connections there.
func listens(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
