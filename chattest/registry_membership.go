package chattest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// The first Join of a user channel returns a position before its first message, for each of
// the user's sockets.
func testOwnChannel(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	early := s.connect(0, "ana") // joins before the first message
	if p := s.join(early, "@ana"); p.Seq != 0 || p.Epoch == "" {
		t.Errorf("Join = %v, but the channel has no message yet", p)
	}
	bob := s.connect(0, "bob")
	s.join(bob, "@bob")
	s.publish(1, "@ana", "1")
	s.wantPositions(early, "@ana", 1)

	second := s.connect(1, "ana") // joins after it
	from := s.join(second, "@ana")
	if from.Seq != 1 {
		t.Errorf("Join = %v after the first message", from)
	}
	s.publish(0, "@ana", "2")
	s.wantPositions(early, "@ana", 1, 2)
	s.wantPositions(second, "@ana", 2)

	s.leave(early, "@ana")
	s.publish(0, "@ana", "3")
	s.wantPositions(second, "@ana", 2, 3)
	s.wantPositions(early, "@ana", 1, 2)
	s.disconnect(second)
	s.publish(1, "@ana", "4") // to nobody
	if p := s.join(early, "@ana"); p != (chat.Position{Epoch: from.Epoch, Seq: 4}) {
		t.Errorf("when it joins again, Join = %v, want 4 in %s", p, from.Epoch)
	}
	s.publish(1, "@ana", "5")
	s.wantPositions(early, "@ana", 1, 2, 5)
	s.wantPositions(second, "@ana", 2, 3)
	s.wantPositions(bob, "@ana")
	s.wantPositions(bob, "@bob")
}

// "Messages that are published after it returns are not delivered to s."
func testLeave(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	stays, leaves := s.connect(0, "ana"), s.connect(0, "bob")
	far := s.connect(1, "eve")
	for _, c := range []*socket{stays, leaves, far} {
		s.join(c, "news")
		s.join(c, "sports")
	}
	s.publish(1, "news", "1")
	for _, c := range []*socket{stays, leaves, far} {
		s.wantPositions(c, "news", 1)
	}
	s.leave(leaves, "news")
	s.publish(0, "news", "2")
	s.publish(1, "news", "3")
	s.wantPositions(stays, "news", 1, 2, 3)
	s.wantPositions(far, "news", 1, 2, 3)
	s.wantPositions(leaves, "news", 1)
	s.publish(1, "sports", "goal")
	s.wantPositions(leaves, "sports", 1) // it is still there

	s.leave(stays, "news") // the last on this node
	s.publish(1, "news", "4")
	s.wantPositions(far, "news", 1, 2, 3, 4)
	if p := s.join(stays, "news"); p.Seq != 4 {
		t.Errorf("when it joins again, Join = %v, want 4", p)
	}
	s.publish(1, "news", "5")
	s.wantPositions(stays, "news", 1, 2, 3, 5)
	s.wantPositions(leaves, "news", 1)
}

// "Remove removes a socket from all channels and from the registry." "Repeating it changes
// nothing."
func testRemove(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	stays, goes := s.connect(0, "ana"), s.connect(0, "ana")
	channels := []string{"", "news", "@ana"}
	for _, c := range []*socket{stays, goes} {
		for _, channel := range channels {
			s.join(c, channel)
		}
	}
	for range 2 {
		s.disconnect(goes)
		for i, channel := range channels {
			m := s.publish(i, channel, "after it")
			s.reaches(stays, channel, m.Position.Seq)
			s.wantPositions(goes, channel)
		}
		for _, channel := range []string{"", "news"} {
			s.wantConnected(channel, "ana/user 1")
		}
	}
}

// wantConnected waits until every node lists these users, as "name/role sockets".
func (s *stage) wantConnected(channel string, want ...string) {
	s.Helper()
	for i, n := range s.nodes {
		eventually(s.T, func() string {
			list, err := n.Registry.Connected(s.Context(), channel)
			if err != nil {
				return fmt.Sprintf("Connected(%q) on node %d: %v", channel, i, err)
			}
			var got []string
			for _, p := range list {
				got = append(got, fmt.Sprintf("%s/%s %d", p.User.Name, p.User.Role, p.Connections))
			}
			if slices.Equal(got, want) {
				return ""
			}
			return fmt.Sprintf("Connected(%q) on node %d lists %s, want %s: %s", channel, i, orNobody(got), orNobody(want), whoIsIn(channel))
		})
	}
}

func orNobody(list []string) string {
	if len(list) == 0 {
		return "nobody"
	}
	return strings.Join(list, ", ")
}

// whoIsIn formats the list of a channel.
func whoIsIn(channel string) string {
	switch {
	case channel == "":
		return "it lists all connected users, each with the number of their sockets, sorted by name"
	case strings.HasPrefix(channel, "@"):
		return "a user's channel lists that user while one of their sockets is connected"
	}
	return "a channel lists the users whose sockets have joined it, each with the number of these sockets, sorted by name"
}

// "A user's channel lists that user while they are connected."
func testConnectedUserChannel(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	s.wantConnected("@ana")
	first := s.connect(0, "ana")
	s.join(first, "")
	s.join(first, "@ana")
	bob := s.connect(1, "bob")
	s.join(bob, "@bob")
	s.wantConnected("@ana", "ana/user 1")
	second, _ := s.connectAs(1, chat.User{Name: "ana", Role: chat.RoleAdmin})
	s.join(second, "@ana")
	s.wantConnected("@ana", "ana/admin 2")
	s.publish(0, "@ana", "1") // changes nothing
	s.wantPositions(first, "@ana", 1)
	s.wantConnected("@ana", "ana/admin 2")
	s.wantConnected("@bob", "bob/user 1")
	s.wantConnected("@eve")
	s.wantConnected("@Ana")
	s.disconnect(first)
	s.wantConnected("@ana", "ana/admin 1")
	s.disconnect(second)
	s.wantConnected("@ana")
	s.wantConnected("@bob", "bob/user 1")
}

// "Add adds a socket and returns how many sockets its user has on all nodes, s included."
func testAddCounts(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	var sockets []*socket
	for i := range 4 {
		c, count := s.connectAs(i, chat.User{Name: "ana", Role: chat.RoleUser})
		sockets = append(sockets, c)
		if count != i+1 {
			t.Errorf("socket %d is number %d of the user's", i+1, count)
		}
	}
	if _, count := s.connectAs(0, chat.User{Name: "Ana", Role: chat.RoleUser}); count != 1 {
		t.Errorf("another user's first socket is number %d", count)
	}
	s.disconnect(sockets[0])
	s.disconnect(sockets[3])
	s.wantConnected("", "Ana/user 1", "ana/user 2")
	if _, count := s.connectAs(1, chat.User{Name: "ana", Role: chat.RoleUser}); count != 3 {
		t.Errorf("after two of four sockets left, the next is number %d", count)
	}
}

// "Connected lists the users in a channel on all nodes, sorted by name. "" lists all
// connected users."
func testConnected(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	s.wantConnected("")
	s.wantConnected("news")
	names := []string{"zoe", "ana", "Bob", "ünal", "bob", "auth0|1 2"}
	var sockets []*socket
	for i, name := range names {
		c, _ := s.connectAs(i, chat.User{Name: name, Role: []string{chat.RoleUser, chat.RoleAdmin, "auditor"}[i%3]})
		s.join(c, "")
		sockets = append(sockets, c)
	}
	second := s.connect(1, "zoe")
	s.wantConnected("", "Bob/auditor 1", "ana/admin 1", "auth0|1 2/auditor 1", "bob/admin 1", "zoe/user 2", "ünal/user 1")
	s.wantConnected("news")

	joining := time.Now()
	for _, c := range append(sockets[:3:3], second) {
		s.join(c, "news")
	}
	s.join(second, "news") // again
	joined := time.Now()
	s.wantConnected("news", "Bob/auditor 1", "ana/admin 1", "zoe/user 2")
	s.wantConnected("News")

	// A channel's Since is when the user joined it, everyone's is when the socket connected.
	// The clocks of other machines may differ a little.
	const skew = time.Second
	for node := range nodes {
		in, err := s.at(node).Registry.Connected(t.Context(), "news")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range in {
			if p.Since.Before(joining.Add(-skew)) || p.Since.After(joined.Add(skew)) {
				t.Errorf("%s is in the channel since %v, joined between %v and %v", p.User.Name, p.Since, joining, joined)
			}
		}
		all, err := s.at(node).Registry.Connected(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			for i, name := range names {
				if since := sockets[i].Since(); p.User.Name == name && p.Since.Sub(since).Abs() > 500*time.Millisecond {
					t.Errorf("%s is connected since %v, the first socket at %v", name, p.Since, since)
				}
			}
		}
	}

	s.leave(sockets[0], "news")
	s.disconnect(sockets[1])
	s.wantConnected("news", "Bob/auditor 1", "zoe/user 1")
	s.wantConnected("", "Bob/auditor 1", "auth0|1 2/auditor 1", "bob/admin 1", "zoe/user 2", "ünal/user 1")
	for _, c := range append(sockets, second) {
		if c != sockets[1] {
			s.disconnect(c)
		}
	}
	s.wantConnected("news")
	s.wantConnected("")
}

// "The role is that of the user's newest socket there", the one that connected last,
// whichever node it is on and in whatever order the sockets joined.
func testNewestRole(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	as := func(node int, role string) *socket {
		c, _ := s.connectAs(node, chat.User{Name: "ana", Role: role})
		s.join(c, "")
		return c
	}
	oldest, middle, newest := as(0, "first"), as(1, "second"), as(1, "third")
	s.wantConnected("", "ana/third 3")
	s.join(oldest, "news")
	s.wantConnected("news", "ana/first 1") // where the newer ones are not
	s.join(newest, "news")
	s.wantConnected("news", "ana/third 2")
	s.join(middle, "news")
	s.wantConnected("news", "ana/third 3")
	s.leave(oldest, "news")
	s.join(oldest, "news") // joined last, connected first
	s.wantConnected("news", "ana/third 3")
	s.leave(newest, "news")
	s.wantConnected("news", "ana/second 2")
	s.wantConnected("", "ana/third 3")

	// Roles change when tokens are refreshed.
	for _, c := range []*socket{oldest, middle} {
		c.setUser(chat.User{Name: "ana", Role: c.User().Role + "-refreshed"})
		s.join(c, "")
		s.join(c, "news")
	}
	s.wantConnected("news", "ana/second-refreshed 2")
	s.wantConnected("", "ana/third 3")
	s.disconnect(newest)
	s.wantConnected("", "ana/second-refreshed 2")
	s.disconnect(middle)
	s.wantConnected("", "ana/first-refreshed 1")
	s.wantConnected("news", "ana/first-refreshed 1")
	s.disconnect(oldest)
	s.wantConnected("news")
	for _, channel := range []string{"", "news"} {
		for i, w := range s.watchers {
			eventually(t, func() string {
				changes := w.of("ana", channel)
				if n := len(changes); n == 0 || changes[n-1].Joined || changes[n-1].User.Role != "first-refreshed" || changes[0].User.Role != "first" {
					return fmt.Sprintf("node %d received the changes %+v of ana in %q, want roles first and first-refreshed", i, changes, channel)
				}
				return ""
			})
		}
	}
}

// "CloseUser closes sockets of a user on all nodes, oldest first, until keep remain. It
// returns how many it closes."
func testCloseUser(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	for _, tt := range []struct {
		name         string
		sockets      int
		keep, closed int
	}{
		{"all", 4, 0, 4},
		{"all-but-the-newest", 4, 1, 3},
		{"the-oldest", 4, 3, 1},
		{"none-too-many", 2, 2, 0},
		{"fewer-than-may-stay", 2, 5, 0},
		{"nobody", 0, 0, 0},
	} {
		other := s.connect(0, "not-"+tt.name)
		var sockets []*socket
		for i := range tt.sockets {
			sockets = append(sockets, s.connect(i, tt.name))
		}
		n, err := s.at(1).Registry.CloseUser(t.Context(), tt.name, tt.keep, chat.CloseDisconnected, "because")
		if err != nil || n != tt.closed {
			t.Errorf("%s: CloseUser = %d, %v, want %d", tt.name, n, err, tt.closed)
		}
		for i, c := range sockets {
			want := []closing{}
			if i < tt.closed {
				want = append(want, closing{chat.CloseDisconnected, "because"})
			}
			eventuallyEqual(t, fmt.Sprintf("%s: socket %d was closed with", tt.name, i), want, c.closings)
		}
		// When this socket is closed, the earlier call has closed all that it closes.
		if n, err := s.at(0).Registry.CloseUser(t.Context(), other.User().Name, 0, chat.CloseTooMany, "last"); err != nil || n != 1 {
			t.Errorf("%s: CloseUser of another user = %d, %v", tt.name, n, err)
		}
		eventuallyEqual(t, tt.name+": another user's was closed with", []closing{{chat.CloseTooMany, "last"}}, other.closings)
		for i, c := range sockets {
			if got := c.closings(); i >= tt.closed && len(got) > 0 {
				t.Errorf("%s: socket %d of %d was closed: %v", tt.name, i, tt.sockets, got)
			}
			s.disconnect(c)
		}
		s.disconnect(other)
	}
}

// The methods "respect ctx": if it has ended they return, and later calls work whatever
// these have done.
func testContextsOver(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	stays := s.connect(0, "ana")
	from := s.join(stays, "news")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r := s.at(0).Registry
	goes := newSocket(0, chat.User{Name: "bob", Role: chat.RoleUser}, time.Now())
	connected := false
	for _, call := range []struct {
		name string
		do   func()
	}{
		{"Add", func() {
			_, err := r.Add(over, goes, 0)
			connected = err == nil
		}},
		{"Join", func() {
			if connected {
				_, _ = r.Join(over, goes, "news")
			}
		}},
		{"Join of a member", func() { _, _ = r.Join(over, stays, "news") }},
		{"Publish", func() { _ = r.Publish(over, s.store(0, "news", "perhaps")) }},
		{"Connected", func() { _, _ = r.Connected(over, "news") }},
		{"CloseUser", func() { _, _ = r.CloseUser(over, "bob", 16, chat.CloseTooMany, "never") }},
		{"Leave", func() {
			if connected {
				_ = r.Leave(over, goes, "news")
			}
		}},
		{"Remove", func() {
			if connected {
				_ = r.Remove(over, goes)
			}
		}},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			call.do()
		}()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("%s does not return when its context has ended", call.name)
		}
	}
	if got := goes.closings(); len(got) > 0 {
		t.Errorf("a socket was closed: %v", got)
	}
	s.wantThrough(stays, "news", from, s.publish(1, "news", "for sure").Position.Seq)
	s.wantConnected("news", "ana/user 1")
	s.wantConnected("", "ana/user 1")
}
