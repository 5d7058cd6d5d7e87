package chattest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// Node is one of the nodes that a test runs on: its registry, and the history for a service
// on this node.
type Node struct {
	Registry chat.Registry // not started yet
	History  chat.History  // the same messages for all nodes; nil: the registry chooses it
}

// TestRegistry tests a registry with its history, on one node or several.
//
// The suite calls open once for each test. open returns one empty Node, or several whose
// registries share an empty backend and whose histories have the same messages. It closes
// them by t.Cleanup. A history keeps at least 20,000 messages of a channel. The tests
// spread their sockets and publishers over the nodes.
//
// The suite starts each registry itself, as a service does. Changes on one node may appear
// a moment later on the others. Where the contract promises something for the moment when
// a call returns, the suite checks it at that moment.
func TestRegistry(t *testing.T, open func(t *testing.T) []Node) {
	tests := []struct {
		name string
		run  func(*testing.T, []Node)
	}{
		{"DeliversInOrderOfPositions", testDeliversInOrder},
		{"ReadsMissingMessagesFromTheHistory", testReadsMissingMessages},
		{"DeliversOnceWhatIsBroadcastAgain", testDeliversOnce},
		{"DeliversToTheMembersOfTheChannel", testDeliversToMembers},
		{"JoinMissesNothing", testJoinMissesNothing},
		{"JoinWhereSomethingIsStoredAndNotHandedOn", testJoinBetweenStoringAndHandingOn},
		{"JoinAgainSaysWhatWasDelivered", testJoinAgain},
		{"JoinWhileTheHistoryIsSlow", testJoinSlowHistory},
		{"JoinRespectsTheContext", testJoinContext},
		{"OnesOwnChannel", testOwnChannel},
		{"LeaveEndsDelivery", testLeave},
		{"RemoveEndsDelivery", testRemove},
		{"ContextsThatAreOver", testContextsOver},
		{"AddCountsTheUsersSockets", testAddCounts},
		{"ConnectedListsTheUsers", testConnected},
		{"ConnectedListsTheUserInAUserChannel", testConnectedUserChannel},
		{"SocketsAreKnownByTheirID", testWrappedSockets},
		{"PublishTakesSeveralMessages", testPublishSeveral},
		{"TheRoleIsThatOfTheNewestSocketThere", testNewestRole},
		{"CloseUserClosesTheOldest", testCloseUser},
		{"PresenceOfEachUserInOrder", testPresence},
		{"PresenceCarriesTheSizeAtTheJoin", testPresenceJoinSize},
		{"PresenceBalancesUnderConcurrency", testPresenceRaces},
		{"AnnounceReachesItsAudience", testAnnounce},
		{"FlushWaitsForDelivery", testFlush},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

// stage is the nodes of a test, with methods that act on them and check.
type stage struct {
	*testing.T
	nodes    []Node
	watchers []*watcher // of each node

	mu     sync.Mutex // guards what follows
	clock  time.Time  // Since of the next socket
	stored map[string]map[uint64]chat.Message
}

func newStage(t *testing.T, nodes []Node) *stage {
	t.Helper()
	if len(nodes) == 0 {
		t.Fatal("open returned no node")
	}
	s := &stage{
		T: t, nodes: nodes,
		clock:  time.Now().UTC().Truncate(time.Millisecond).Add(-time.Hour),
		stored: make(map[string]map[uint64]chat.Message),
	}
	for i, n := range nodes {
		w := &watcher{}
		h, err := n.Registry.Start(n.History, w.add)
		switch {
		case err != nil:
			t.Fatalf("Start of node %d: %v", i, err)
		case h == nil:
			t.Fatalf("Start of node %d returns no history: it must return the history that a service uses, the one given or the registry's own", i)
		}
		nodes[i].History = h
		s.watchers = append(s.watchers, w)
	}
	return s
}

// at returns a node by its number, modulo the number of nodes.
func (s *stage) at(node int) Node { return s.nodes[node%len(s.nodes)] }

// connect adds a socket on a node. Each socket's Since is a second after the one before.
func (s *stage) connect(node int, name string) *socket {
	s.Helper()
	c, _ := s.connectAs(node, chat.User{Name: name, Role: chat.RoleUser})
	return c
}

func (s *stage) connectAs(node int, u chat.User) (c *socket, count int) {
	s.Helper()
	s.mu.Lock()
	since := s.clock
	s.clock = since.Add(time.Second)
	s.mu.Unlock()
	c = newSocket(node, u, since)
	count, err := s.at(node).Registry.Add(s.Context(), c, 0)
	if err != nil {
		s.Errorf("Add of a socket of %s: %v", u.Name, err)
	}
	return c, count
}

func (s *stage) disconnect(c *socket) {
	s.Helper()
	if err := s.at(c.node).Registry.Remove(s.Context(), c); err != nil {
		s.Errorf("Remove of a socket of %s: %v", c.User().Name, err)
	}
}

func (s *stage) join(c *socket, channel string) chat.Position {
	s.Helper()
	p, err := s.at(c.node).Registry.Join(s.Context(), c, channel)
	if err != nil {
		s.Errorf("Join(%s, %q): %v", c.User().Name, channel, err)
	}
	return p
}

func (s *stage) leave(c *socket, channel string) {
	s.Helper()
	if err := s.at(c.node).Registry.Leave(s.Context(), c, channel); err != nil {
		s.Errorf("Leave(%s, %q): %v", c.User().Name, channel, err)
	}
}

// store stores a message in the history.
func (s *stage) store(node int, channel, content string) chat.Message {
	s.Helper()
	m, err := appendOne(s.Context(), s.at(node).History, chat.Message{
		Channel: channel, Sender: "eva", Content: content, Time: time.Now().UTC().Truncate(time.Millisecond),
	})
	if err != nil {
		s.Errorf("Append to %q: %v", channel, err)
		return m
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored[channel] == nil {
		s.stored[channel] = make(map[uint64]chat.Message)
	}
	s.stored[channel][m.Position.Seq] = m
	return m
}

// deliver publishes stored messages.
func (s *stage) deliver(node int, msgs ...chat.Message) {
	s.Helper()
	if err := s.at(node).Registry.Publish(s.Context(), msgs...); err != nil {
		s.Errorf("Publish of %d messages, %s first: %v", len(msgs), msgs[0].ID(), err)
	}
}

func (s *stage) publish(node int, channel, content string) chat.Message {
	s.Helper()
	m := s.store(node, channel, content)
	if m.Position.Seq > 0 {
		s.deliver(node, m)
	}
	return m
}

// last returns the position of a channel's newest message.
func (s *stage) last(node int, channel string) chat.Position {
	s.Helper()
	p, err := s.at(node).History.Last(s.Context(), channel)
	if err != nil {
		s.Errorf("Last of %q: %v", channel, err)
	}
	return p
}

// reaches waits until c received a message at this position or after it.
func (s *stage) reaches(c *socket, channel string, seq uint64) bool {
	s.Helper()
	if c.wait(func() bool { return c.last[channel] >= seq }) {
		return true
	}
	s.Errorf("%s on node %d did not receive position %d of %q, got %d messages, up to %d",
		c.User().Name, c.node, seq, channel, len(c.messages(channel)), c.lastOf(channel))
	return false
}

// wantThrough waits until c received the message at a position, and checks that all
// messages after from came once, in order.
func (s *stage) wantThrough(c *socket, channel string, from chat.Position, to uint64) {
	s.Helper()
	if from.Seq < to && !s.reaches(c, channel, to) {
		return
	}
	s.wantContiguous(c, channel, from)
}

// wantContiguous checks that the messages of c follow from without a hole.
func (s *stage) wantContiguous(c *socket, channel string, from chat.Position) {
	s.Helper()
	got := c.messages(channel)
	for i, m := range got {
		want := chat.Position{Epoch: from.Epoch, Seq: from.Seq + uint64(i) + 1}
		if m.Position != want {
			s.Errorf("%s on node %d joined %q at %v: message %d is %v, want %v", c.User().Name, c.node, channel, from, i, m.Position, want)
			return
		}
	}
}

// wantStored checks that c received each message as it was stored.
func (s *stage) wantStored(c *socket, channel string) {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range c.messages(channel) {
		if diff := cmp.Diff(s.stored[channel][m.Position.Seq], m); diff != "" {
			s.Errorf("message %s (-stored +delivered):\n%s", m.ID(), diff)
		}
	}
}

// wantPositions waits until c received exactly the messages at these positions. The last
// one must be a message that comes last.
func (s *stage) wantPositions(c *socket, channel string, want ...uint64) {
	s.Helper()
	if len(want) > 0 && !s.reaches(c, channel, want[len(want)-1]) {
		return
	}
	if diff := cmp.Diff(append([]uint64{}, want...), positions(c.messages(channel))); diff != "" {
		s.Errorf("%s in %q (-want +got):\n%s", c.User().Name, channel, diff)
	}
}

func positions(msgs []chat.Message) []uint64 {
	list := make([]uint64, len(msgs))
	for i, m := range msgs {
		list[i] = m.Position.Seq
	}
	return list
}

// race publishes a bounded number of messages to the channels, from all nodes, until stop
// is called. It publishes as fast as the messages reach a witness.
func (s *stage) race(channels ...string) (stop func()) {
	s.Helper()
	const most = 3000 // by each publisher
	witness := s.connect(0, "ana")
	for _, channel := range channels {
		s.join(witness, channel)
	}
	ctx, cancel := context.WithCancel(s.Context())
	var publishers sync.WaitGroup
	for p := range 2 * max(2, len(s.nodes)) {
		publishers.Go(func() {
			for i := 0; i < most && ctx.Err() == nil && !s.Failed(); i++ {
				channel := channels[i%len(channels)]
				m := s.publish(p, channel, fmt.Sprint(p, " ", i))
				if m.Position.Seq == 0 || !s.reaches(witness, channel, m.Position.Seq) {
					return
				}
			}
		})
	}
	return func() {
		cancel()
		publishers.Wait()
	}
}
