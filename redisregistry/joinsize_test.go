package redisregistry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// sizes reads what a node announced of ana: "+", how many are there, and the JoinSize.
type sizes struct {
	t    *testing.T
	node *node
}

func (s *sizes) read() (list []string) {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	for _, c := range s.node.changes {
		if c.User.Name != "ana" || c.Channel != "" {
			continue
		}
		sign := "-"
		if c.Joined {
			sign = "+"
		}
		list = append(list, fmt.Sprint(sign, c.Size, " joined ", c.JoinSize))
	}
	return list
}

func (s *sizes) want(want ...string) {
	s.t.Helper()
	var got []string
	eventually(s.t, fmt.Sprintf("%q", want), func() bool {
		got = s.read()
		return len(got) >= len(want)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("told of ana (-want +got):\n%s", diff)
	}
}

// Whatever happens to nodes and to Redis, ana leaves with the size that she was
// announced with.
func TestTheJoinSizeOutlives(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	tests := map[string]func(t *testing.T, s *redistest.Server, a, b *node, line *cable, told *sizes){
		"another node's socket": func(_ *testing.T, _ *redistest.Server, a, b *node, _ *cable, told *sizes) {
			here := a.connect("ana")
			a.connect("x")
			there := b.connect("ana")
			a.disconnect(here)
			b.disconnect(there)
			told.want("+1 joined 1", "-1 joined 1")
		},
		"a page that is loaded again": func(_ *testing.T, _ *redistest.Server, a, b *node, _ *cable, told *sizes) {
			r := a.connect("ana")
			a.connect("x")
			a.connect("y")
			a.disconnect(r)
			told.want("+1 joined 1", "-2 joined 1")
			r = b.connect("ana")
			b.disconnect(r)
			told.want("+1 joined 1", "-2 joined 1", "+3 joined 1", "-2 joined 1")
		},
		"no absence that is long": func(t *testing.T, s *redistest.Server, a, _ *node, _ *cable, told *sizes) {
			r := a.connect("ana")
			a.connect("x")
			a.disconnect(r)
			c := s.Client()
			defer c.Close()
			eventually(t, "her to be forgotten", func() bool { return c.Exists(t.Context(), "chat:{presence}:left").Val() == 0 })
			a.disconnect(a.connect("ana"))
			told.want("+1 joined 1", "-1 joined 1", "+2 joined 2", "-1 joined 2")
		},
		"another role": func(_ *testing.T, _ *redistest.Server, a, _ *node, _ *cable, told *sizes) {
			r := a.connect("ana")
			a.connect("x")
			r.setRole(chat.RoleAdmin)
			a.join(r, "")
			a.wantConnected("", "ana as admin, 1", "x as user, 1")
			a.disconnect(r)
			told.want("+1 joined 1", "-1 joined 1")
		},
		"an emptied Redis": func(t *testing.T, s *redistest.Server, a, b *node, _ *cable, told *sizes) {
			here, there := a.connect("ana"), b.connect("ana")
			a.connect("x")
			c := s.Client()
			defer c.Close()
			if err := c.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			b.wantConnected("", "ana as user, 2", "x as user, 1")
			b.disconnect(there)
			a.wantConnected("", "ana as user, 1", "x as user, 1")
			a.disconnect(here)
			told.want("+1 joined 1", "-1 joined 1")
		},
		"a node that is given up and returns": func(_ *testing.T, _ *redistest.Server, a, b *node, line *cable, told *sizes) {
			r := b.connect("ana")
			a.connect("x")
			line.cut()
			a.wantConnected("", "x as user, 1")
			line.mend()
			a.wantConnected("", "ana as user, 1", "x as user, 1")
			b.disconnect(r)
			told.want("+1 joined 1", "-1 joined 1", "+2 joined 1", "-1 joined 1")
		},
	}
	for name, run := range tests {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t)
			var line cable
			opt := redisregistry.WithLease(lease)
			a, b := start(t, clientOf(s), opt), start(t, line.client(s), opt)
			run(t, s, a, b, &line, &sizes{t, a})
		})
	}
}

// A node's clock says nothing of which socket is the newest: the sockets of one whose
// clock is behind are as new as they are.
func TestTheOldestSocketIsWhichConnectedFirst(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	connect := func(n *node, role string, clock time.Duration) *receiver {
		t.Helper()
		r := newReceiver("ana", role)
		r.since = r.since.Add(clock)
		if _, err := n.Add(t.Context(), r, 0); err != nil {
			t.Fatal(err)
		}
		n.join(r, "news")
		return r
	}
	first := connect(a, "first", 0)
	second := connect(b, "second", -10*time.Minute)
	third := connect(a, "third", -20*time.Minute)
	for _, channel := range []string{"", "news"} {
		a.wantConnected(channel, "ana as third, 3")
	}
	if n, err := b.CloseUser(t.Context(), "ana", 2, chat.CloseTooMany, ""); err != nil || n != 1 {
		t.Errorf("closed %d, %v", n, err)
	}
	eventually(t, "the first to be closed", func() bool { return len(first.codes()) == 1 })
	a.disconnect(first)
	a.wantConnected("", "ana as third, 2")
	if n, err := a.CloseUser(t.Context(), "ana", 1, chat.CloseTooMany, ""); err != nil || n != 1 {
		t.Errorf("closed %d, %v", n, err)
	}
	eventually(t, "the second to be closed", func() bool { return len(second.codes()) == 1 })
	b.disconnect(second)
	if codes := third.codes(); len(codes) > 0 {
		t.Errorf("the newest was closed with %v", codes)
	}
}
