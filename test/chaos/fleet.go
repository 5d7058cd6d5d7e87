package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/reto10/chat"
)

const (
	// members is about the number of clients in a group.
	members = 100
	// groupsEach is how many groups a client is in.
	groupsEach = 2
	// Of this many clients, one has the same user as the one before it, one connects through the
	// line of a node, and one has tokens that expire soon.
	everySecondSocket = 20
	everyFronted      = 10
	everyShortLife    = 50
)

// fleet is all clients with a socket.
type fleet struct {
	cluster   *cluster
	clients   []*client // all, those of the observers and talkers included
	observers []*observer
	talkers   []*talker
	ended     sync.WaitGroup
}

// newFleet makes the clients; none is connected yet.
func newFleet(c *cluster) *fleet {
	f := &fleet{cluster: c}
	groups := max(1, c.config.Clients*groupsEach/members)
	for i := range groups {
		c.groups = append(c.groups, fmt.Sprintf("group-%d", i+1))
	}
	for i, n := range c.nodes {
		o := f.add(chat.User{Name: fmt.Sprintf("observer-%d", i+1), Role: chat.RoleAdmin})
		o.pinned = n
		f.observers = append(f.observers, newObserver(o))
	}
	for i, n := range c.nodes {
		t := f.add(chat.User{Name: fmt.Sprintf("talker-%d", i+1), Role: chat.RoleAdmin})
		t.pinned = n
		f.talkers = append(f.talkers, newTalker(t, &speech{name: t.user.Name, rng: f.rng(), cluster: c}))
	}
	name := ""
	for i := range c.config.Clients {
		if i%everySecondSocket != everySecondSocket-1 {
			name = fmt.Sprintf("user-%04d", i+1)
			c.users = append(c.users, name)
		}
		cl := f.add(chat.User{Name: name, Role: chat.RoleUser})
		cl.fronted = i%everyFronted == 0
		for j := range groupsEach {
			cl.channels = append(cl.channels, c.groups[(i+j*max(1, groups/2))%groups])
		}
		if groups == 1 {
			cl.channels = cl.channels[:1]
		}
		if i%everyShortLife == everyShortLife/2 {
			cl.expires = true
		}
	}
	return f
}

func (f *fleet) rng() *rand.Rand {
	return rand.New(rand.NewPCG(f.cluster.config.Seed, 1000+uint64(len(f.clients))))
}

func (f *fleet) add(u chat.User) *client {
	c := &client{
		cluster: f.cluster,
		report:  f.cluster.report,
		ledger:  f.cluster.ledger,
		user:    u,
		rng:     f.rng(),
		cursors: make(map[string]*cursor),
	}
	f.clients = append(f.clients, c)
	return c
}

// connect starts some of the clients. They stay connected until ctx ends.
func (f *fleet) connect(ctx context.Context, clients []*client) {
	for _, c := range clients {
		f.ended.Go(func() { c.follow(ctx) })
	}
}

// expected returns the users that should be connected, each with the number of sockets.
func (f *fleet) expected() map[string]int {
	who := make(map[string]int)
	for _, c := range f.clients {
		who[c.user.Name]++
	}
	return who
}

// absent returns how many clients are not connected.
func (f *fleet) absent() (n int) {
	for _, c := range f.clients {
		if c.connected() == nil {
			n++
		}
	}
	return n
}

// until polls a condition until it returns "". Otherwise the condition says what is wrong.
func until(ctx context.Context, within time.Duration, wrong func() string) (still string) {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if still = wrong(); still == "" {
			return ""
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return still
		case <-ctx.Done():
			return errors.Join(errors.New(still), ctx.Err()).Error()
		}
	}
}
