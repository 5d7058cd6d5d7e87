package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
)

// BenchmarkResume opens sockets that missed the same messages of 128 bytes. Compare its
// cpu-µs/socket with that of missed=0: the difference is the replay. The clients are in the
// same process: each takes a few reads of 64 KiB.
func BenchmarkResume(b *testing.B) {
	for _, history := range []string{"memory", "foreign"} {
		for _, missed := range []int{0, 100} {
			b.Run(fmt.Sprintf("history=%s/missed=%d", history, missed), func(b *testing.B) {
				benchmarkResume(b, history, missed)
			})
		}
	}
}

func benchmarkResume(b *testing.B, history string, missed int) {
	// The limits of a user grow with the sockets that it may have.
	opts := []chat.Option{chat.WithPresence(chat.PresenceToNobody), chat.WithConnectRate(0, 0), chat.WithSocketsPerUser(100_000)}
	if history == "foreign" {
		opts = append(opts, chat.WithHistory(newMeteredHistory(chat.MemoryLimits{})))
	}
	s := chatserver.Serve(b, opts...)
	since := s.Publish("", "0")[0]
	last := `"since"` // in the welcome
	for i := range missed {
		last = fmt.Sprintf("%0128d", i+1)
		s.Publish("", last)
	}
	addr := strings.TrimPrefix(s.URL, "http://")
	request := fmt.Appendf(nil, "GET /ws/chat?since=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: chat.v1\r\n"+
		"Authorization: Bearer %s\r\n\r\n", since, s.Token("ana"))
	buf := make([]byte, 64<<10)
	open := func(until func(n int) bool) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(chatserver.Patience))
		_ = conn.(*net.TCPConn).SetLinger(0)
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		for n := 0; !until(n); {
			r, err := conn.Read(buf[n%len(buf):])
			if err != nil && err != io.EOF {
				b.Fatalf("after %d bytes: %v", n, err)
			}
			n += r
		}
	}
	total := 0 // every client gets as many bytes
	open(func(n int) bool {
		total = n
		return bytes.Contains(buf[:n], []byte(last)) && buf[n-1] == '}'
	})
	before := cpuTime(b)
	b.ReportAllocs()
	for b.Loop() {
		open(func(n int) bool { return n >= total })
	}
	b.ReportMetric(float64(cpuTime(b)-before)/1e3/float64(b.N), "cpu-µs/socket")
}

// cpuTime returns how long the process has computed.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
