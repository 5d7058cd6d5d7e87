package chat_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
)

// onManyCores lets what the test makes have as many shards as on a machine of 64 cores.
func onManyCores(t *testing.T) {
	before := runtime.GOMAXPROCS(64)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// Publishers send to one user while the user's sockets connect and disconnect. Each socket
// gets exactly the messages after the position at which it joined, in order.
func TestOnManyCoresAUsersSocketsGetAllAfterTheirPosition(t *testing.T) {
	onManyCores(t)
	const publishers, sockets, rounds = 4, 6, 60
	s := newStage(t, chat.NewMemoryHistory(chat.MemoryLimits{Count: 1 << 20, Bytes: 1 << 30}))
	channels := []string{"", "@ana", "news"}
	var publishing, connecting sync.WaitGroup
	stop := make(chan struct{})
	for i := range publishers {
		publishing.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
					s.publish(channels[n%len(channels)])
				}
			}
		})
	}
	for range sockets {
		connecting.Go(func() {
			for round := range rounds {
				channel := channels[round%len(channels)]
				r := s.connect("ana")
				from := s.join(r, channel)
				got := r.positions(t, s.registry)
				if err := s.registry.Leave(t.Context(), r, channel); err != nil {
					t.Error(err)
				}
				upTo, err := s.history.Last(t.Context(), channel)
				if err != nil {
					t.Error(err)
				}
				all := r.positions(t, s.registry)
				if err := s.registry.Remove(t.Context(), r); err != nil {
					t.Error(err)
				}
				for i, p := range all {
					if p != from+uint64(i)+1 {
						t.Errorf("%q from %d: %d is behind %d", channel, from, p, from+uint64(i))
						break
					}
				}
				if len(all) < len(got) || len(all) > int(upTo.Seq-from) {
					t.Errorf("%q from %d: %d messages, then %d, and the last is %d", channel, from, len(got), len(all), upTo.Seq)
				}
			}
		})
	}
	connecting.Wait()
	close(stop)
	publishing.Wait()
}

// All methods of a registry at once: presence stays right, and no two of them wait for each
// other.
func TestOnManyCoresPresenceIsRightWhateverRuns(t *testing.T) {
	onManyCores(t)
	const users, sockets, rounds = 12, 24, 150
	registry := chat.NewMemoryRegistry()
	changes := newChangeLog(t)
	if _, err := registry.Start(nil, changes.add); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	name := func(n int) string { return fmt.Sprint("user", n) }
	channels := []string{"a", "b", "c", "d"}
	for n := range users {
		channels = append(channels, chat.UserChannel(name(n)))
	}
	var acting sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		acting.Go(func() { // reads and publishes meanwhile
			position := make(map[string]uint64)
			for {
				select {
				case <-stop:
					return
				default:
				}
				channel := channels[rand.IntN(len(channels))]
				position[channel]++
				registry.ReadMissing(channel, chat.Position{Epoch: "e", Seq: position[channel]})
				err := registry.Publish(ctx, chat.Message{Channel: channel, Position: chat.Position{Epoch: "e", Seq: position[channel]}})
				if err != nil {
					t.Error(err)
				}
				list, err := registry.Connected(ctx, channel)
				if err != nil || !slices.IsSortedFunc(list, byName) {
					t.Errorf("Connected = %v, %v", list, err)
				}
				registry.Announce(channel, rand.IntN(2) == 0, []chat.Event{{Type: chat.EventUserJoined, Channel: channel}})
				registry.Stats()
				if _, err := registry.CloseUser(ctx, name(rand.IntN(users)), 1, chat.CloseDisconnected, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	left := make([]map[string]int, sockets) // what each goroutine leaves connected, by channel
	user := make([]string, sockets)
	var churn sync.WaitGroup
	for i := range sockets {
		user[i] = name(i % users)
		churn.Go(func() {
			for round := range rounds {
				r := discarder{fmt.Sprintf("%d-%d", i, round), user[i]}
				if _, err := registry.Add(ctx, r, 0); err != nil {
					t.Error(err)
				}
				if _, err := registry.Add(ctx, r, 0); err == nil {
					t.Error("the same socket was added twice")
				}
				in := make(map[string]int)
				for range 6 {
					channel := channels[rand.IntN(len(channels))]
					if rand.IntN(3) == 0 {
						delete(in, channel)
						if err := registry.Leave(ctx, r, channel); err != nil {
							t.Error(err)
						}
						continue
					}
					in[channel] = 1
					if _, err := registry.Join(ctx, r, channel); err != nil {
						t.Error(err)
					}
				}
				if round == rounds-1 {
					left[i] = in
					return
				}
				if err := registry.Remove(ctx, r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	churn.Wait()
	close(stop)
	acting.Wait()

	for _, channel := range []string{"", "a", "b", "c", "d"} {
		want := make(map[string]int) // sockets by user
		for i, in := range left {
			if channel == "" || in[channel] > 0 {
				want[user[i]]++
			}
		}
		got := make(map[string]int)
		list, err := registry.Connected(ctx, channel)
		if err != nil {
			t.Error(err)
		}
		for _, p := range list {
			got[p.User.Name] = p.Connections
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q has (-want +got):\n%s", channel, diff)
		}
		changes.check(channel, want)
	}
	if got := registry.Stats().Users; got != users {
		t.Errorf("%d users, want %d", got, users)
	}
}

func byName(a, b chat.Presence) int { return strings.Compare(a.User.Name, b.User.Name) }

// changeLog checks that the changes of each channel follow each other.
type changeLog struct {
	t  *testing.T
	mu sync.Mutex
	in map[string]map[string]int // by channel and user: JoinSize
}

func newChangeLog(t *testing.T) *changeLog {
	return &changeLog{t: t, in: make(map[string]map[string]int)}
}

func (l *changeLog) add(c chat.PresenceChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.in[c.Channel]
	if in == nil {
		in = make(map[string]int)
		l.in[c.Channel] = in
	}
	joinSize, there := in[c.User.Name]
	if there == c.Joined {
		l.t.Errorf("%+v, but there before: %v", c, there)
	}
	if c.Joined {
		in[c.User.Name], joinSize = c.JoinSize, c.Size
	} else {
		delete(in, c.User.Name)
	}
	if c.Size != len(in) || c.JoinSize != joinSize {
		l.t.Errorf("%+v, want size %d and join size %d", c, len(in), joinSize)
	}
}

// check compares who is in a channel after all changes with who should be.
func (l *changeLog) check(channel string, want map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range want {
		if _, in := l.in[channel][name]; !in {
			l.t.Errorf("%s in %q was not announced", name, channel)
		}
	}
	if len(l.in[channel]) != len(want) {
		l.t.Errorf("%q has %v by its changes, want %v", channel, l.in[channel], want)
	}
}

// The same with a service and real sockets.
func TestOnManyCoresAUsersClientsMissNothing(t *testing.T) {
	onManyCores(t)
	const publishers, clients, rounds = 4, 6, 20
	s := chatserver.Serve(t, chat.WithConnectRate(0, 0),
		chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 1 << 20})))
	ctx, stop := context.WithCancel(context.Background())
	var publishing, reading sync.WaitGroup
	for i := range publishers {
		publishing.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				channel := []string{"@ana", "@ana", "news", ""}[(n+i)%4]
				if _, err := s.Broadcast(context.Background(), chat.Message{Channel: channel, Sender: "ci", Content: "x"}); err != nil {
					t.Errorf("Broadcast: %v", err)
					return
				}
				if n%4 == 0 {
					<-time.After(time.Duration(rand.IntN(1000)) * time.Microsecond) // alone, or in a burst
				}
			}
		})
	}
	for i := range clients {
		reading.Go(func() {
			r := &returning{s: s, name: "ana", last: map[string]string{}, seq: map[string]int{}, byPosition: true}
			rng := rand.New(rand.NewPCG(2, uint64(i)))
			for range rounds {
				if err := r.session(rng.IntN(60)); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	reading.Wait()
	stop()
	publishing.Wait()
}
