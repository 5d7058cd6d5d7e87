// Command write serves sockets with write(2) alone, the floor of the comparison.
package main

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/reto10/chat/test/bench/peer"
)

func main() { peer.Main(newFloor, "write") }

// floor is no chat: it writes one prepared frame to one descriptor after the other, the least
// that one write(2) per frame costs. Over TLS each write is its own record. It reads
// nothing.
type floor struct {
	mu    sync.Mutex
	conns []net.Conn
	fds   []int // of conns; -1 where a write is not a call on the descriptor

	users  map[string]int // index of a user's; nil: not needed
	direct []byte         // the frame that PublishTo writes
}

func newFloor(_ string, s peer.Settings) (peer.Peer, error) {
	f := new(floor)
	if s.Direct {
		f.users = make(map[string]int)
	}
	return f, nil
}

func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		post(w, r)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	// RFC 6455, section 4.2.2.
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if err != nil {
		_ = conn.Close()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users != nil {
		f.users[peer.User(r)] = len(f.conns)
	}
	f.conns = append(f.conns, conn)
	f.fds = append(f.fds, descriptor(conn))
}

// post answers a request like the server's POST /messages and publishes nothing: the least that
// net/http and encoding/json cost.
func post(w http.ResponseWriter, r *http.Request) {
	var message struct {
		Content string `json:"content"`
	}
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(peer.Event(message.Content)) // fails on a connection that is gone
}

// descriptor returns the descriptor of a TCP connection, -1 for others.
func descriptor(conn net.Conn) int {
	fd := -1
	if plain, ok := conn.(*net.TCPConn); ok {
		if raw, err := plain.SyscallConn(); err == nil {
			_ = raw.Control(func(n uintptr) { fd = int(n) })
		}
	}
	return fd
}

func (f *floor) Sockets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

func (f *floor) Publish(_, content string) error {
	frame := textFrame(peer.Event(content))
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.fds {
		if err := f.write(i, frame); err != nil {
			return err
		}
	}
	return nil
}

// PublishTo writes one frame to a user's descriptor. The frame is prepared once: each message
// has the content of the first.
func (f *floor) PublishTo(user, content string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.direct == nil {
		f.direct = textFrame(peer.Event(content))
	}
	i, known := f.users[user]
	if !known {
		return fmt.Errorf("floor: %s has no descriptor", user)
	}
	return f.write(i, f.direct)
}

// write writes a frame to the descriptor with an index.
func (f *floor) write(i int, frame []byte) error {
	var err error
	if fd := f.fds[i]; fd < 0 {
		_, err = f.conns[i].Write(frame)
	} else {
		err = writeAll(fd, frame)
	}
	if err != nil {
		return fmt.Errorf("floor: writing a frame: %w", err)
	}
	return nil
}

// writeAll writes b and waits if the kernel has no room.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case syscall.EAGAIN:
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
			if err != nil && err != syscall.EINTR {
				return err
			}
		case syscall.EINTR:
		default:
			return err
		}
	}
	return nil
}

// textFrame is an unmasked final text frame (RFC 6455, section 5.2).
func textFrame(payload []byte) []byte {
	b := []byte{0x81}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}
