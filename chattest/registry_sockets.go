package chattest

import (
	"testing"
	"time"

	"github.com/reto10/chat"
)

// labelled wraps a socket by value. It cannot be compared, so it cannot be a key of a map.
type labelled struct {
	chat.Socket
	labels []string
}

// "The registry identifies a socket by its ID alone": each call gets another wrapper of the
// same socket, or the socket itself.
func testWrappedSockets(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	r := s.at(0).Registry
	ctx := t.Context()
	wraps := map[string]func(*socket) chat.Socket{
		"the socket itself": func(c *socket) chat.Socket { return c },
		"a value":           func(c *socket) chat.Socket { return labelled{c, []string{"tab"}} },
		"a pointer":         func(c *socket) chat.Socket { return &labelled{c, nil} },
	}
	for adding, add := range wraps {
		for using, use := range wraps {
			name := adding + " is added, then comes " + using
			c := newSocket(0, chat.User{Name: "ana", Role: chat.RoleUser}, time.Now())
			other := newSocket(0, chat.User{Name: "ana", Role: chat.RoleUser}, time.Now())
			if count, err := r.Add(ctx, add(c), 0); err != nil || count != 1 {
				t.Errorf("%s: Add = %d, %v, want 1", name, count, err)
			}
			if count, err := r.Add(ctx, add(other), 0); err != nil || count != 2 {
				t.Errorf("%s: Add of another socket = %d, %v, want 2", name, count, err)
			}
			from, err := r.Join(ctx, use(c), "news")
			if err != nil {
				t.Errorf("%s: Join: %v", name, err)
			}
			if again, err := r.Join(ctx, add(c), "news"); err != nil || again != from {
				t.Errorf("%s: Join again = %v, %v, want %v", name, again, err, from)
			}
			s.wantConnected("news", "ana/user 1")
			m := s.publish(0, "news", "hello")
			s.wantPositions(c, "news", m.Position.Seq)
			if err := r.Leave(ctx, use(c), "news"); err != nil {
				t.Errorf("%s: Leave: %v", name, err)
			}
			s.wantConnected("news")
			if err := r.Remove(ctx, use(c)); err != nil {
				t.Errorf("%s: Remove: %v", name, err)
			}
			s.wantConnected("", "ana/user 1")
			if err := r.Remove(ctx, use(other)); err != nil {
				t.Errorf("%s: Remove of another socket: %v", name, err)
			}
			s.wantConnected("")
		}
	}
}
