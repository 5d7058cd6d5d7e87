package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
	"github.com/reto10/chat/test/chatserver"
)

// engineSeed repeats what the sockets do, but not when they do it.
var engineSeed = flag.Uint64("engine.seed", 1, "of what the sockets do in TestOrderWhateverSocketsDo")

const (
	enginePublishers = 8
	engineRoamers    = 10 // users whose sockets connect and disconnect; every third is an admin
	engineStayers    = 3  // users whose sockets only listen
	engineRounds     = 60 // things that a roamer does
	engineEnd        = "the end"
	engineMostSlow   = 2000 // messages that overflow the kernel's buffers of a socket
)

var engineChannels = []string{"", "a", "b", "c"}

// Many publish at once, from Go and through sockets, while sockets join, leave, ping, hang
// up, vanish, return, do not read and are disconnected. Over all their sockets, each user
// sees a run of the channel's history without a gap, a repeat or another order. All that
// arrives is whole, legal frames.
func TestOrderWhateverSocketsDo(t *testing.T) {
	for over, serve := range map[string]func(testing.TB, ...chat.Option) *chatserver.Server{"TCP": chatserver.Serve, "TLS": chatserver.ServeTLS} {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Logf("to do the same again: -engine.seed=%d", *engineSeed)
				}
			}()
			f := newFaulty(chat.MemoryLimits{Count: 1 << 20, Bytes: 1 << 30}) // all is kept
			f.broadcast = func(content string) {
				// Some are overtaken between being stored and being published.
				if n := len(content) % 32; n < 8 {
					<-time.After(time.Duration(n) * time.Millisecond)
				}
			}
			s := serve(t, chat.WithRegistry(f), chat.WithHistory(f), chat.WithPresenceWindow(10*time.Millisecond),
				chat.WithBacklog(8*32<<10), chat.WithSocketsPerUser(100), chat.WithCommandRate(0, 0), chat.WithConnectRate(0, 0))
			(&engine{s: s, t: t}).run(f)
		})
	}
}

// engine is what the users of one test have in common.
type engine struct {
	s       *chatserver.Server
	t       *testing.T
	closed  [5000]atomic.Int32 // sockets by close code
	resumed atomic.Int32
}

func (e *engine) run(history chat.History) {
	publishing, stop := context.WithCancel(context.Background())
	var publishers, roaming, staying sync.WaitGroup
	for i := range enginePublishers {
		channel := engineChannels[i%len(engineChannels)]
		publishers.Go(func() { e.publish(publishing, channel, rand.New(rand.NewPCG(*engineSeed, uint64(i)))) })
	}
	users := make([]*user, engineRoamers+engineStayers)
	for i := range users {
		name := fmt.Sprint("user", i)
		if i%3 == 0 && i < engineRoamers {
			name = fmt.Sprint("admin", i)
		}
		u := &user{
			engine: e, name: name, slow: i%3 == 1, rng: rand.New(rand.NewPCG(*engineSeed, uint64(100+i))),
			at: map[string]chat.Position{}, left: map[string]chat.Position{}, acked: map[string]string{},
		}
		users[i] = u
		if i < engineRoamers {
			roaming.Go(func() { u.try(u.roam) })
		} else {
			staying.Go(func() { u.try(u.stay) })
		}
	}
	roaming.Wait()
	stop()
	publishers.Wait()
	for _, channel := range engineChannels {
		e.s.Publish(channel, engineEnd)
	}
	staying.Wait()
	for _, u := range users[:engineRoamers] {
		u.try(u.catchUp)
	}
	e.compare(users, history)
}

// publish broadcasts in bursts until ctx ends.
func (e *engine) publish(ctx context.Context, channel string, rng *rand.Rand) {
	tick := time.NewTicker(10 * time.Millisecond) // a rate that -race can follow
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for range rng.IntN(5) {
			n++
			content := fmt.Sprint(n, strings.Repeat("x", rng.IntN(600)))
			if _, err := e.s.Broadcast(context.Background(), chat.Message{Channel: channel, Sender: "ci", Content: content}); err != nil {
				e.t.Errorf("Broadcast: %v", err)
				return
			}
		}
	}
}

// compare compares what users saw with what the history has.
func (e *engine) compare(users []*user, history chat.History) {
	kept := map[string][]chat.Message{}
	of := func(id string) (chat.Message, error) {
		channel, position, err := chat.ParseID(id)
		if err != nil {
			return chat.Message{}, err
		}
		all, known := kept[channel]
		if !known {
			if all, err = history.After(context.Background(), channel, chat.Position{}, chat.Limit{Count: 1 << 20}); err != nil {
				return chat.Message{}, err
			}
			kept[channel] = all
		}
		if position.Seq < 1 || position.Seq > uint64(len(all)) || all[position.Seq-1].Position != position {
			return chat.Message{}, errors.New("no such position")
		}
		return all[position.Seq-1], nil
	}
	seen := 0
	for _, u := range users {
		for _, got := range u.saw {
			want, err := of(got.ID)
			if err != nil || want.Content != got.Content || want.Sender != got.Sender || want.Channel != got.Channel {
				e.t.Errorf("%s saw %.200v, the history has %.200v (%v)", u.name, got, want, err)
				break
			}
		}
		for id, content := range u.acked {
			if got, err := of(id); err != nil || got.Content != content || got.Sender != u.name {
				e.t.Errorf("%s's %q was acknowledged as %s, where the history has %.200v (%v)", u.name, content, id, got, err)
			}
		}
		seen += len(u.saw)
	}
	e.t.Logf("%d messages seen, sockets closed: 1000 %d, 4002 %d, 4003 %d; resumed %d", seen,
		e.closed[1000].Load(), e.closed[4002].Load(), e.closed[4003].Load(), e.resumed.Load())
	for _, code := range []int{1000, 4002, 4003} {
		if e.closed[code].Load() == 0 {
			e.t.Errorf("no socket was closed with %d: that was not tested", code)
		}
	}
}

var (
	deliverySeed = flag.Uint64("delivery.seed", 1, "the first seed of TestDelivery")
	deliveryRuns = flag.Uint64("delivery.runs", 5, "how many seeds TestDelivery runs")
)

// Clients receive what the protocol promises, whatever they do: see chattest.TestDelivery.
func TestDelivery(t *testing.T) {
	registries := map[string]func() chat.Registry{
		"at once": func() chat.Registry { return chat.NewMemoryRegistry() },
		"late":    func() chat.Registry { return lateRegistry{chat.NewMemoryRegistry()} },
	}
	for published, registry := range registries {
		for seed := *deliverySeed; seed < *deliverySeed+*deliveryRuns; seed++ {
			t.Run(fmt.Sprint(published, "/seed ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					chattest.TestDelivery(t, seed, func(*testing.T) []chattest.Node {
						history := chat.NewMemoryHistory(chat.MemoryLimits{Count: 20_000})
						return []chattest.Node{{Registry: registry(), History: history}}
					})
				})
			})
		}
	}
}

// lateRegistry publishes some messages a while after they were stored, and so behind
// later ones: the history is ahead of what is delivered. It takes its time to join and
// to leave, before and after it is done.
type lateRegistry struct{ *chat.MemoryRegistry }

// wait is no more than a few milliseconds of a bubble's time.
func (lateRegistry) wait(n int) {
	if n %= 8; n < 4 {
		<-time.After(time.Duration(n) * time.Millisecond)
	}
}

func (r lateRegistry) Publish(ctx context.Context, msgs ...chat.Message) error {
	for _, m := range msgs {
		r.wait(len(m.Content))
	}
	return r.MemoryRegistry.Publish(ctx, msgs...)
}

func (r lateRegistry) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	r.wait(rand.Int())
	defer r.wait(rand.Int())
	return r.MemoryRegistry.Join(ctx, s, channel)
}

func (r lateRegistry) Leave(ctx context.Context, s chat.Socket, channel string) error {
	r.wait(rand.Int())
	defer r.wait(rand.Int())
	return r.MemoryRegistry.Leave(ctx, s, channel)
}
