package chaos

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// The ports are below those that the system gives to outgoing connections: a process that
// restarts must get its port again while thousands of clients dial. Runs at the same time
// must not take the ports of each other's stopped servers, so each program takes a block
// and listens on its first port until it ends.
const (
	firstPort  = 20000
	blockPorts = 400
	blocks     = 30
)

var ports struct {
	mu    sync.Mutex
	owner net.Listener // of the block; nil: none was taken yet
	first int          // port of the block that may be given
	next  int
}

// takeBlock requires ports.mu.
func takeBlock() error {
	for i := range blocks {
		port := firstPort + (os.Getpid()+i)%blocks*blockPorts
		l, err := net.Listen("tcp", local(port))
		if err != nil {
			continue
		}
		ports.owner, ports.first, ports.next = l, port+1, port+1
		return nil
	}
	return errors.New("no block of ports is free: too many runs at once")
}

// freePort returns a port of 127.0.0.1 on which no process listens.
func freePort() (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.owner == nil {
		if err := takeBlock(); err != nil {
			return 0, err
		}
	}
	for range blockPorts - 1 {
		port := ports.next
		if ports.next++; ports.next == ports.first+blockPorts-1 {
			ports.next = ports.first
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

// listens reports whether a process listens on the port.
func listens(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
