package main

import (
	"testing"

	"github.com/reto10/chat/test/wstest"
)

// TestBehindAProxyClientsAnswerHeartbeats looks at what heartbeats are: a pong needs
// no answer, a ping one of the client's own (RFC 6455, section 5.5).
func TestBehindAProxyClientsAnswerHeartbeats(t *testing.T) {
	t.Parallel()
	const ping, pong = wstest.OpPing, wstest.OpPong
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
			s := d.Connect(d.tokenOf("user"))
			for {
				f, err := s.Next()
				if err != nil {
					t.Fatal(err)
				}
				if f.Opcode == wstest.OpPing || f.Opcode == wstest.OpPong {
					if f.Opcode != test.want {
						t.Errorf("the heartbeat is %#x, want %#x", f.Opcode, test.want)
					}
					return
				}
			}
		})
	}
}
