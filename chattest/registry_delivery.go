package chattest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// "Concurrent calls may come in another order than the positions. Delivery follows the
// positions".
func testDeliversInOrder(t *testing.T, nodes []Node) {
	const publishers, each = 4, 40
	s := newStage(t, nodes)
	channels := []string{"", "news", "@ana"}
	var sockets []*socket
	from := make(map[*socket]map[string]chat.Position)
	for i := range 6 {
		c := s.connect(i, "ana")
		sockets = append(sockets, c)
		from[c] = make(map[string]chat.Position)
		for _, channel := range channels {
			from[c][channel] = s.join(c, channel)
		}
	}
	var racing sync.WaitGroup
	for p := range publishers {
		racing.Go(func() {
			for i := range each {
				for _, channel := range channels {
					s.publish(p, channel, fmt.Sprint(p, " ", i))
				}
			}
		})
	}
	racing.Wait()
	for _, channel := range channels {
		last := s.last(0, channel)
		if last.Seq != publishers*each {
			t.Errorf("%d messages to %q are at %v", publishers*each, channel, last)
		}
		for _, c := range sockets {
			s.wantThrough(c, channel, from[c][channel], last.Seq)
			s.wantStored(c, channel)
		}
	}
}

// "Publish delivers stored messages to the members of their channels", also several in
// one call, of several channels and in any order.
func testPublishSeveral(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	channels := []string{"", "news", "@ana"}
	var sockets []*socket
	for i := range 3 {
		c := s.connect(i, "ana")
		for _, channel := range channels {
			s.join(c, channel)
		}
		sockets = append(sockets, c)
	}
	var msgs []chat.Message
	for i := range 4 {
		for _, channel := range channels {
			msgs = append(msgs, s.store(i, channel, fmt.Sprint(i)))
		}
	}
	slices.Reverse(msgs)
	s.deliver(0, msgs[:1]...)
	s.deliver(1, msgs[1:]...)
	for _, c := range sockets {
		for _, channel := range channels {
			s.wantPositions(c, channel, 1, 2, 3, 4)
			s.wantStored(c, channel)
		}
	}
}

// "The registry reads a missing message from the history first."
func testReadsMissingMessages(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	var sockets []*socket
	for i := range 3 {
		c := s.connect(i, fmt.Sprint("user", i))
		s.join(c, "news")
		sockets = append(sockets, c)
	}
	var msgs []chat.Message
	for i := range 10 {
		msgs = append(msgs, s.store(i, "news", fmt.Sprint(i+1)))
	}
	for i, seq := range []int{4, 10, 7} {
		s.deliver(i, msgs[seq-1])
	}
	for _, c := range sockets {
		s.wantPositions(c, "news", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	}
	s.publish(0, "news", "11")
	for _, c := range sockets {
		s.wantPositions(c, "news", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
		s.wantStored(c, "news")
	}
}

// "Every message after that position is delivered to s once, in order."
func testDeliversOnce(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	var sockets []*socket
	for i := range 2 {
		c := s.connect(i, "ana")
		s.join(c, "news")
		sockets = append(sockets, c)
	}
	first := s.publish(0, "news", "1")
	second := s.publish(1, "news", "2")
	for node := range nodes {
		s.deliver(node, second)
		s.deliver(node, first)
	}
	s.publish(0, "news", "3")
	for _, c := range sockets {
		s.wantPositions(c, "news", 1, 2, 3)
	}
}

// "Publish delivers stored messages to the members of their channels on all nodes."
func testDeliversToMembers(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	member, everywhere, nowhere := s.connect(0, "ana"), s.connect(1, "bob"), s.connect(2, "eve")
	s.join(member, "a")
	for _, channel := range []string{"", "a", "b", "@bob"} {
		s.join(everywhere, channel)
	}
	for i, channel := range []string{"b", "", "@bob", "@ana", "a", "A"} {
		s.publish(i, channel, "in "+channel)
	}
	for _, channel := range []string{"", "a", "b", "@bob"} {
		s.wantPositions(everywhere, channel, 1)
		s.wantStored(everywhere, channel)
	}
	s.wantPositions(member, "a", 1)
	for c, channels := range map[*socket][]string{
		member:     {"", "b", "@bob", "@ana", "A"},
		everywhere: {"@ana", "A"},
		nowhere:    {"", "a", "b", "@bob", "@ana", "A"},
	} {
		for _, channel := range channels {
			s.wantPositions(c, channel)
		}
	}
}

// "Every message after that position is delivered to s once, in order", and "messages that
// are published after [Leave] returns are not delivered", while publishers race with
// sockets that join and leave on all nodes.
func testJoinMissesNothing(t *testing.T, nodes []Node) {
	const joiners, rounds = 4, 20
	s := newStage(t, nodes)
	channels := []string{"news", "@ana"}
	stop := s.race(channels...)
	type visit struct {
		c     *socket
		until uint64 // the newest position after it had left
	}
	var mu sync.Mutex // guards left
	left := make(map[string][]visit)
	var racing sync.WaitGroup
	for j := range joiners {
		racing.Go(func() {
			channel := channels[j%len(channels)]
			for round := 0; round < rounds && !t.Failed(); round++ {
				c := s.connect(j+round, "ana")
				from := s.join(c, channel)
				s.wantThrough(c, channel, from, s.last(c.node, channel).Seq)
				if round%2 > 0 {
					s.disconnect(c)
					continue
				}
				s.leave(c, channel)
				mu.Lock()
				left[channel] = append(left[channel], visit{c, s.last(c.node, channel).Seq})
				mu.Unlock()
				s.wantContiguous(c, channel, from)
			}
		})
	}
	racing.Wait()
	stop()
	for channel, visits := range left {
		// When another socket has the last message, this one would have received it too.
		end := s.connect(0, "ana")
		from := s.join(end, channel)
		for node := range nodes {
			s.wantThrough(end, channel, from, s.publish(node, channel, "the end").Position.Seq)
		}
		for _, v := range visits {
			if got := v.c.lastOf(channel); got > v.until {
				t.Errorf("%q was left at position %d, and position %d was delivered", channel, v.until, got)
			}
		}
	}
}

// "The position may be before the history's last one: messages that are stored but not yet
// published are still delivered", whether or not the channel has members already.
func testJoinBetweenStoringAndHandingOn(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	s.join(s.connect(0, "bob"), "open")
	for _, channel := range []string{"open", "empty"} {
		s.publish(0, channel, "1")
		second, third := s.store(0, channel, "2"), s.store(1, channel, "3")
		var joined []*socket
		var from []chat.Position
		for i := range 2 {
			c := s.connect(i, "ana")
			joined, from = append(joined, c), append(from, s.join(c, channel))
			if from[i].Seq > 3 {
				t.Errorf("Join(%q) = %v before 4 is stored", channel, from[i])
			}
		}
		s.deliver(1, third)
		s.deliver(0, second)
		s.publish(1, channel, "4")
		for i, c := range joined {
			s.wantThrough(c, channel, from[i], 4)
			s.wantStored(c, channel)
		}
	}
}

// "If s is a member already, then all messages up to the position have been delivered, and
// none after it was delivered before the call."
func testJoinAgain(t *testing.T, nodes []Node) {
	s := newStage(t, nodes)
	channels := []string{"news", "@ana"}
	var sockets []*socket
	from := make(map[*socket]chat.Position)
	for i := range 4 {
		c := s.connect(i, "ana")
		sockets = append(sockets, c)
		from[c] = s.join(c, channels[i%len(channels)])
	}
	stop := s.race(channels...)
	var racing sync.WaitGroup
	for i, c := range sockets {
		racing.Go(func() {
			channel := channels[i%len(channels)]
			for round := 0; round < 40 && !t.Failed(); round++ {
				before := c.lastOf(channel)
				p := s.join(c, channel)
				if p.Seq < before {
					t.Errorf("Join of a member = %v, but %d was delivered before it", p, before)
				}
				if got := max(c.lastOf(channel), from[c].Seq); got < p.Seq {
					t.Errorf("Join of a member = %v, but %d was delivered", p, got)
				}
				s.reaches(c, channel, s.publish(i, channel, fmt.Sprint("again ", i, " ", round)).Position.Seq)
			}
		})
	}
	racing.Wait()
	stop()
	for i, c := range sockets {
		channel := channels[i%len(channels)]
		s.wantThrough(c, channel, from[c], s.last(0, channel).Seq)
		s.wantStored(c, channel)
	}
}

// gate is a history whose Last waits in one channel.
type gate struct {
	chat.History
	asked chan struct{} // Last has read the position and waits

	mu      sync.Mutex // guards the fields below
	channel *string    // nil: none
	open    chan struct{}
}

// newGate wraps the first node's history. It skips the test if the registry chooses the
// history, because that one cannot be wrapped.
func newGate(t *testing.T, nodes []Node) *gate {
	t.Helper()
	if nodes[0].History == nil {
		t.Skip("the history is the registry's own, so it cannot be made slow")
	}
	g := &gate{History: nodes[0].History, asked: make(chan struct{}, 1000)}
	nodes[0].History = g
	return g
}

func (g *gate) hold(channel string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.channel, g.open = &channel, make(chan struct{})
}

func (g *gate) letGo() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.channel = nil
	close(g.open)
}

func (g *gate) Last(ctx context.Context, channel string) (chat.Position, error) {
	p, err := g.History.Last(ctx, channel)
	g.mu.Lock()
	held, open := g.channel != nil && *g.channel == channel, g.open
	g.mu.Unlock()
	if !held {
		return p, err
	}
	g.asked <- struct{}{}
	select {
	case <-open:
		return p, err
	case <-ctx.Done():
		return chat.Position{}, ctx.Err()
	}
}

// A message is not lost if it is published after the registry reads the position and before
// it uses it. Other channels and sockets do not wait meanwhile. A registry that does not
// read the position from the history must not be slow either.
func testJoinSlowHistory(t *testing.T, nodes []Node) {
	g := newGate(t, nodes)
	s := newStage(t, nodes)
	joining, other := s.connect(0, "ana"), s.connect(0, "bob")
	for i, channel := range []string{"news", "@ana"} {
		s.publish(1, channel, "before")
		g.hold(channel)
		joined := make(chan chat.Position, 1)
		go func() { joined <- s.join(joining, channel) }()
		var from chat.Position
		select {
		case <-g.asked:
		case from = <-joined:
		case <-time.After(patience):
			t.Fatalf("Join(%q) neither returned nor read the channel's position", channel)
		}
		s.publish(0, channel, "meanwhile")
		s.publish(1, channel, "meanwhile")
		elsewhere := fmt.Sprint("elsewhere-", i)
		start := s.join(other, elsewhere)
		s.wantThrough(other, elsewhere, start, s.publish(0, elsewhere, "x").Position.Seq)
		g.letGo()
		if from == (chat.Position{}) {
			select {
			case from = <-joined:
			case <-time.After(patience):
				t.Fatalf("Join(%q) does not return", channel)
			}
		}
		s.wantThrough(joining, channel, from, s.publish(1, channel, "after").Position.Seq)
		s.wantStored(joining, channel)
	}
}

// The methods "respect ctx", also while the history does not answer. A Join that failed may
// be retried.
func testJoinContext(t *testing.T, nodes []Node) {
	g := newGate(t, nodes)
	s := newStage(t, nodes)
	c := s.connect(0, "ana")
	for _, channel := range []string{"news", "@ana"} {
		g.hold(channel)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := s.at(0).Registry.Join(ctx, c, channel)
			done <- err
		}()
		select {
		case <-g.asked:
			cancel()
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("Join(%q) returns no error after its context has ended", channel)
				}
			case <-time.After(patience):
				t.Fatalf("Join(%q) does not return when its context has ended", channel)
			}
		case <-done: // it does not read the history
		case <-time.After(patience):
			t.Fatalf("Join(%q) neither returned nor read the channel's position", channel)
		}
		g.letGo()
		from := s.join(c, channel)
		s.wantThrough(c, channel, from, s.publish(1, channel, "x").Position.Seq)
	}
}
