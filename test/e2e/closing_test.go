package e2e_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// closeTime is how long a socket that is being closed may take to be gone.
const closeTime = 5 * time.Second

// Whatever the reason to close it: a peer that reads nothing, and so blocks the
// goroutine that writes to it, is gone everywhere within the time for closing.
func TestAPeerThatDoesNotReadIsGoneWithinTheTimeForClosing(t *testing.T) {
	big := strings.Repeat("x", 1000)
	tests := []struct {
		name  string
		opts  []chat.Option
		token time.Duration
		// end has the socket closed, and returns when that has begun.
		end func(t *testing.T, s *chatserver.Server, c *chatserver.Client)
	}{
		{"its token expires", nil, 20 * time.Second, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			<-time.After(20 * time.Second)
		}},
		{"an admin disconnects the user", nil, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			if n, err := s.Disconnect(t.Context(), "ana"); n != 1 || err != nil {
				t.Errorf("disconnected %d, %v", n, err)
			}
		}},
		{"its backlog is too long", []chat.Option{chat.WithContentLimit(1000), chat.WithBacklog(8000)}, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			for s.Stats().SlowClosed == 0 {
				s.Publish("", big)
			}
		}},
		{"a newer socket replaces it", []chat.Option{chat.WithSocketsPerUser(1), chat.WithReplaceOldest()}, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			newer := s.Dial("ana")
			t.Cleanup(newer.HangUp)
		}},
		{"its commands are too fast", []chat.Option{chat.WithCommandRate(0.001, 1)}, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			for range 1 + 41 {
				if err := c.Conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"leave","channel":"x"}`)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"the service shuts down", nil, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			go s.Shutdown(context.Background())
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := chatserver.ServePipes(t, append([]chat.Option{chat.WithPresence(chat.PresenceToNobody), chat.WithHeartbeat(time.Hour)}, tt.opts...)...)
				c := s.DialToken(t, chatserver.TokenFor(t, chat.User{Name: "ana", Role: chat.RoleUser}, tt.token))
				session := c.Welcome.Session
				s.Publish("", big) // nobody reads it: the writer is blocked from here on
				synctest.Wait()
				tt.end(t, s, c)
				synctest.Wait()
				<-time.After(closeTime)
				synctest.Wait()
				left := map[string]int{}
				list, err := s.Connected(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range list {
					left[p.User.Name] = p.Connections
				}
				want := map[string]int{}
				if tt.name == "a newer socket replaces it" {
					want["ana"] = 1
				}
				if diff := cmp.Diff(want, left); diff != "" {
					t.Errorf("%v after the closing of %s began: connected (-want +got):\n%s", closeTime, session, diff)
				}
				if got := s.Stats().Sockets; got != len(want) {
					t.Errorf("%d sockets are left, want %d", got, len(want))
				}
				// Its connection is closed, too: what is read ends after what was sent.
				for {
					if _, err := c.Read(); err != nil {
						break
					}
				}
			})
		})
	}
}

// The same over the sockets of a system, whose buffers are full first.
func TestAPeerPastItsBacklogThatDoesNotReadIsGone(t *testing.T) {
	chatserver.OverTCPAndTLS(t, func(t *testing.T, s *chatserver.Server) {
		t.Parallel()
		peer := s.DialRaw(t, "slow")
		text := strings.Repeat("x", 32<<10)
		for s.Stats().SlowClosed == 0 {
			s.Publish("", text)
			if s.Stats().BacklogBytes > 0 {
				<-time.After(20 * time.Millisecond) // the kernel takes what it takes
			}
		}
		wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
		_ = peer.Close()
	}, chat.WithBacklog(256<<10), chat.WithStallTimeout(time.Hour))
}
