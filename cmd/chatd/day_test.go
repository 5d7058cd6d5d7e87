package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat/test/chatdtest"
)

// An ordinary day: users come and go, some without a word; strangers scan; probes
// ask; the files are read again; it is ended. None of that is worth a warning.
func TestAnOrdinaryDayIsNoWarning(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "one")
	for name, args := range map[string][]string{
		"with TLS":       {"-tls-cert", cert, "-tls-key", key},
		"behind a proxy": {"-plaintext", "-trusted-proxies", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startAlone(t, nil, append([]string{"-addr", "127.0.0.1:0", "-drain", "1s", "-users", write(t, "users", chatdtest.Users),
				"-secret-file", write(t, "secret", chatdtest.Secret)}, args...)...)
			addr := d.URL[strings.LastIndex(d.URL, "/")+1:]
			token := d.tokenOf("admin")
			admin, user := d.Connect(token), d.Connect(d.tokenOf("user"))
			admin.Want("welcome")
			user.Want("welcome")
			admin.Say("good morning")
			user.Want("message")
			d.login("user", "a slip of the finger")
			d.Dial("/ws/chat?token=expired")
			d.Dial("/ws/chat?token="+token, "Origin: https://elsewhere.example.com")
			for range 3 {
				d.get(d.URL + "/readyz")
				d.get(d.URL + "/healthz")
				d.get(d.URL + "/nothing")
			}

			// Clients that are gone without a word, at every step.
			raw := func(text string) net.Conn {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(d.URL, "https") && text != "" {
					conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
				}
				_, _ = io.WriteString(conn, text)
				return conn
			}
			upgrade := "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
			for _, text := range []string{
				"", "GET /?a;b HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /chat.js HTTP/1.1\r\nHost: x\r\n\r\n",
				"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"user",
				"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n" +
					`{"username":"user","password":"battery staple"}   `,
				"POST /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 100\r\n\r\n{\"cont",
				"GET /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\n\r\n",
				"GET /ws/chat?token=" + token + " HTTP/1.1\r\n" + upgrade,
				"GET /ws/chat?token=" + token + " HTTP/1.1\r\n" + upgrade + "\r\n",
				"GET /ws/chat?token=" + token + " HTTP/1.1\r\n" + upgrade + "\r\n\x81\xff", // half a frame
				"\x16\x03\x01\x00\x05hello", "SSH-2.0-scanner\r\n", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
			} {
				for _, reset := range []bool{false, true} {
					conn := raw(text)
					if tcp, ok := conn.(*net.TCPConn); ok && reset {
						_ = tcp.SetLinger(0)
					}
					conn.Close()
				}
			}
			// A scanner that speaks the other one of HTTP and TLS.
			other, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(other, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, io.LimitReader(other, 10))
			other.Close()
			gone := d.Connect(d.tokenOf("user"))
			gone.Want("welcome")
			gone.Close()

			admin.Say("good night")
			user.Want("message")
			d.Signal(syscall.SIGHUP)
			d.Await(usersAgain)
			<-time.After(100 * time.Millisecond) // what strangers began ends
			d.Signal(syscall.SIGTERM)
			if code := admin.CloseCode(); code != 1001 {
				t.Errorf("closed with %d, want 1001", code)
			}
			if code := user.CloseCode(); code != 1001 {
				t.Errorf("closed with %d, want 1001", code)
			}
			if code := d.ExitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			for line := range strings.Lines(d.Logged()) {
				if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
					t.Errorf("logged: %s", line)
				}
			}
		})
	}
}
