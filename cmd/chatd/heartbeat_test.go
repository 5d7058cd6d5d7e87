package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// TestBehindAProxyClientsAnswerHeartbeats looks at what heartbeats are: a pong needs
// no answer, a ping one of the client's own (RFC 6455, section 5.5).
func TestBehindAProxyClientsAnswerHeartbeats(t *testing.T) {
	t.Parallel()
	const ping, pong = 0x89, 0x8a
	for name, test := range map[string]struct {
		args []string
		want byte
	}{
		"on its own":               {nil, pong},
		"with -pings":              {[]string{"-pings"}, ping},
		"behind a proxy":           {[]string{"-plaintext"}, ping},
		"told that there are none": {[]string{"-plaintext", "-pings=false"}, pong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, nil, append(test.args, "-heartbeat", "200ms")...)
			frames := d.openRaw(d.tokenOf("user"))
			for {
				head := make([]byte, 4) // no frame is shorter than 64 KiB and needs more
				if _, err := io.ReadFull(frames, head[:2]); err != nil {
					t.Fatal(err)
				}
				if head[0] == ping || head[0] == pong {
					if head[0] != test.want {
						t.Errorf("the heartbeat is %#x, want %#x", head[0], test.want)
					}
					return
				}
				length := int(head[1])
				if length == 126 {
					if _, err := io.ReadFull(frames, head[2:]); err != nil {
						t.Fatal(err)
					}
					length = int(binary.BigEndian.Uint16(head[2:]))
				}
				if _, err := frames.Discard(length); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// openRaw opens a socket and returns the frames that come.
func (d *process) openRaw(token string) *bufio.Reader {
	d.t.Helper()
	at, err := url.Parse(d.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	var conn net.Conn
	if at.Scheme == "https" {
		conn, err = tls.Dial("tcp", at.Host, &tls.Config{InsecureSkipVerify: true})
	} else {
		conn, err = net.Dial("tcp", at.Host)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /ws/chat HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", at.Host, token)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		d.t.Fatalf("upgrading: %v, %v", resp, err)
	}
	return r
}
