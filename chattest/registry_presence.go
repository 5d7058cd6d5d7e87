package chattest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// wantChanges waits until every node reported these changes of the user in the channel, in
// order: "+" joined and "-" left, with the number of users after it.
func (s *stage) wantChanges(user, channel string, want ...string) {
	s.Helper()
	if want == nil {
		want = []string{}
	}
	for i, w := range s.watchers {
		eventuallyEqual(s.T, fmt.Sprintf("what node %d received of %s in %q", i, user, channel), want, func() []string {
			got := []string{}
			for _, c := range w.of(user, channel) {
				sign := "-"
				if c.Joined {
					sign = "+"
				}
				got = append(got, fmt.Sprint(sign, c.Size, " ", c.User.Role))
			}
			return got
		})
	}
}

// "The registry calls changed whenever a user's first socket joins a channel or the last
// one leaves it, on any node. The changes of one user come in their order."
func testPresence(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	ana, _ := s.connectAs(0, chat.User{Name: "ana", Role: chat.RoleAdmin})
	s.wantChanges("ana", "", "+1 admin")
	s.join(ana, "")
	s.join(ana, "@ana")
	s.join(ana, "news")
	s.wantChanges("ana", "news", "+1 admin")
	bob, bob2 := s.connect(1, "bob"), s.connect(2, "bob")
	s.wantChanges("bob", "", "+2 user")
	s.join(bob, "news")
	s.join(bob2, "news")
	s.join(bob2, "news") // again
	s.wantChanges("bob", "news", "+2 user")

	s.leave(bob, "news")
	s.disconnect(bob) // bob2 is still there
	s.leave(ana, "news")
	s.wantChanges("ana", "news", "+1 admin", "-1 admin")
	s.wantChanges("bob", "news", "+2 user")
	s.disconnect(bob2)
	s.wantChanges("bob", "news", "+2 user", "-0 user")
	s.wantChanges("bob", "", "+2 user", "-1 user")
	s.join(ana, "news")
	s.disconnect(ana)
	s.disconnect(ana) // again
	s.wantChanges("ana", "news", "+1 admin", "-1 admin", "+1 admin", "-0 admin")
	s.wantChanges("ana", "", "+1 admin", "-0 admin")
	s.connect(1, "ana")
	s.wantChanges("ana", "", "+1 admin", "-0 admin", "+1 user")

	// No changes are reported for user channels. For everyone's channel there is one per user.
	for i, w := range s.watchers {
		if got := w.all(); len(got) != 11 {
			t.Errorf("node %d received %d changes, want 11: %v", i, len(got), got)
		}
	}
}

// "The registry keeps it with the user, the same on all nodes, and repeats it when the user
// leaves. For a user who left and soon joined again it is the smaller of the two sizes".
func testPresenceJoinSize(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	sizes := func(user, channel string, want ...string) {
		t.Helper()
		for i, w := range s.watchers {
			eventuallyEqual(t, fmt.Sprintf("sizes that node %d received of %s in %q", i, user, channel), want, func() []string {
				got := []string{}
				for _, c := range w.of(user, channel) {
					sign := "-"
					if c.Joined {
						sign = "+"
					}
					got = append(got, fmt.Sprint(sign, c.Size, " joined ", c.JoinSize))
				}
				return got
			})
		}
	}
	ana, far := s.connect(0, "ana"), s.connect(1, "ana")
	s.join(ana, "news")
	s.join(far, "news")
	for _, name := range []string{"bob", "eve"} {
		s.join(s.connect(2, name), "news")
	}
	for _, channel := range []string{"", "news"} {
		sizes("ana", channel, "+1 joined 1")
		sizes("bob", channel, "+2 joined 2")
		sizes("eve", channel, "+3 joined 3")
	}
	s.leave(ana, "news") // the other node's socket keeps it
	s.disconnect(ana)
	s.wantConnected("news", "ana/user 1", "bob/user 1", "eve/user 1")
	s.leave(far, "news")
	s.disconnect(far)
	for _, channel := range []string{"", "news"} {
		sizes("ana", channel, "+1 joined 1", "-2 joined 1")
	}
	s.join(s.connect(1, "ana"), "news")
	for i, w := range s.watchers {
		for _, channel := range []string{"", "news"} {
			eventually(t, func() string {
				changes := w.of("ana", channel)
				if n := len(changes); n != 3 || changes[2].JoinSize < 1 || changes[2].JoinSize > 3 {
					return fmt.Sprintf("node %d received %+v of ana in %q, want that she joined again, JoinSize from 1 to 3", i, changes, channel)
				}
				return ""
			})
		}
	}
}

// Even if users' sockets race on all nodes, joins and leaves of each user alternate, and
// the last change is the true state.
func testPresenceRaces(t *testing.T, nodes []Node) {
	const users, sockets, rounds = 3, 3, 12
	s := newStage(t, nodes)
	var racing sync.WaitGroup
	for u := range users {
		for i := range sockets {
			racing.Go(func() {
				for round := range rounds {
					c := s.connect(i+round, fmt.Sprint("user", u))
					s.join(c, "news")
					if round%3 == 0 {
						s.leave(c, "news")
						s.join(c, "news")
					}
					if round%3 == 1 {
						s.leave(c, "news")
					}
					s.disconnect(c)
				}
			})
		}
	}
	racing.Wait()
	s.wantConnected("news")
	s.wantConnected("")
	for i, w := range s.watchers {
		for u := range users {
			for _, channel := range []string{"news", ""} {
				user := fmt.Sprint("user", u)
				eventually(t, func() string {
					changes := w.of(user, channel)
					if len(changes) == 0 || changes[len(changes)-1].Joined {
						return fmt.Sprintf("node %d last received that %s is in %q: %v", i, user, channel, changes)
					}
					return ""
				})
				for n, c := range w.of(user, channel) {
					if joined := n%2 == 0; c.Joined != joined || c.Size < 0 || c.Size > users {
						t.Errorf("node %d received %+v, change %d of that user there", i, c, n)
					}
					if joinSize := w.of(user, channel)[n/2*2].JoinSize; c.JoinSize != joinSize || c.JoinSize < 1 || c.JoinSize > users {
						t.Errorf("node %d received %+v, change %d of that user there: the join had JoinSize %d", i, c, n, joinSize)
					}
				}
			}
		}
	}
}

// "Announce delivers presence events to the members of a channel on this node, or to the
// admins among them only." The role counts with which the socket joined last.
func testAnnounce(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	admin, _ := s.connectAs(0, chat.User{Name: "admin", Role: chat.RoleAdmin})
	ana, bob := s.connect(0, "ana"), s.connect(0, "bob")
	far, _ := s.connectAs(1, chat.User{Name: "far", Role: chat.RoleAdmin})
	for _, c := range []*socket{admin, ana, bob, far} {
		s.join(c, "")
		if c != bob {
			s.join(c, "news")
		}
	}
	event := func(typ chat.EventType, name, channel string) chat.Event {
		return chat.Event{
			Type: typ, Channel: channel, User: chat.User{Name: name, Role: chat.RoleUser},
			Time: time.Now().UTC().Truncate(time.Millisecond),
		}
	}
	var delivered = make(map[*socket][]chat.Event)
	notify := func(channel string, adminsOnly bool, to []*socket, events ...chat.Event) {
		t.Helper()
		s.at(0).Registry.Announce(channel, adminsOnly, events)
		for _, c := range to {
			delivered[c] = append(delivered[c], events...)
		}
	}
	check := func(what string) {
		t.Helper()
		for _, c := range []*socket{admin, ana, bob, far} {
			want := append([]chat.Event{}, delivered[c]...)
			if !c.wait(func() bool { return len(c.events) >= len(want) }) {
				t.Errorf("%s: %s did not receive the last message", what, c.User().Name)
			}
			if len(nodes) == 1 && c == far {
				continue // that is the same node
			}
			if diff := cmp.Diff(want, c.others()); diff != "" {
				t.Errorf("%s: %s received (-want +got):\n%s", what, c.User().Name, diff)
			}
		}
	}
	notify("", true, []*socket{admin}, event(chat.EventUserJoined, "x", ""))
	notify("", false, []*socket{admin, ana, bob}, event(chat.EventUserJoined, "y", ""), event(chat.EventUserLeft, "y", ""))
	check("everyone's channel")
	notify("news", true, []*socket{admin}, event(chat.EventUserJoined, "z", "news"))
	notify("news", false, []*socket{admin, ana}, event(chat.EventUserLeft, "z", "news"))
	notify("nobody", false, nil, event(chat.EventUserLeft, "z", "nobody"))
	check("a channel")

	admin.setUser(chat.User{Name: "admin", Role: chat.RoleUser})
	ana.setUser(chat.User{Name: "ana", Role: chat.RoleAdmin})
	for _, c := range []*socket{admin, ana} {
		s.join(c, "")
		s.join(c, "news")
	}
	notify("news", true, []*socket{ana}, event(chat.EventUserJoined, "new role", "news"))
	notify("", true, []*socket{ana}, event(chat.EventUserJoined, "new role", ""))
	notify("", false, []*socket{admin, ana, bob}, event(chat.EventUserLeft, "new role", ""))
	check("another role")

	s.leave(ana, "news")
	s.disconnect(bob)
	notify("news", true, nil, event(chat.EventUserLeft, "left", "news"))
	notify("news", false, []*socket{admin}, event(chat.EventUserLeft, "left", "news"))
	notify("", false, []*socket{admin, ana}, event(chat.EventUserLeft, "left", ""))
	check("who has left")
}

// "Flush returns when all messages published before the call are written to the sockets
// of this node".
func testFlush(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	var sockets []*socket
	for range 50 {
		c := s.connect(0, "ana")
		s.join(c, "news")
		sockets = append(sockets, c)
	}
	for round := range 20 {
		m := s.publish(0, "news", fmt.Sprint(round))
		if err := s.at(0).Registry.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, c := range sockets {
			if got := c.lastOf("news"); got != m.Position.Seq {
				t.Fatalf("flushed after position %d, socket %d got %d", m.Position.Seq, i, got)
			}
		}
	}
	// The first is stored and not published yet.
	s.store(0, "news", "first")
	m := s.publish(0, "news", "second")
	if err := s.at(0).Registry.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, c := range sockets {
		if got := c.lastOf("news"); got != m.Position.Seq {
			t.Fatalf("flushed after position %d and one before it that is only stored, socket %d got %d", m.Position.Seq, i, got)
		}
	}
}
