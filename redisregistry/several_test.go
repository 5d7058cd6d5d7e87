package redisregistry_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// roundTrips records the script calls that store messages: for each round trip, how many
// it has.
type roundTrips struct {
	mu    sync.Mutex // guards calls
	calls []int
}

func (r *roundTrips) note(cmds ...redis.Cmder) {
	n := 0
	for _, c := range cmds {
		// The first key of the publish script is the result of a call.
		if args := c.Args(); strings.HasPrefix(c.Name(), "eval") && len(args) > 3 {
			if key, ok := args[3].(*string); ok && strings.Contains(*key, "}:n:") {
				n++
			}
		}
	}
	if n > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls = append(r.calls, n)
	}
}

func (r *roundTrips) take() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.calls
	r.calls = nil
	return taken
}

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.note(cmd)
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		r.note(cmds...)
		return next(ctx, cmds)
	}
}

// inChannels makes n messages of a size. They take turns in the channels.
func inChannels(n, size int, channels ...string) (msgs []chat.Message) {
	for i := range n {
		msgs = append(msgs, chat.Message{Channel: channels[i%len(channels)], Sender: "ops", Content: strings.Repeat("x", size)})
	}
	return msgs
}

func TestMessagesTakeOneScriptCall(t *testing.T) {
	client := clientOf(redistest.Start(t))
	var trips roundTrips
	client.AddHook(&trips)
	n := start(t, client)
	n.publish("warm", "up") // Redis learns the script
	trips.take()
	for _, tt := range []struct {
		name string
		msgs []chat.Message
		want []int // script calls of each round trip
	}{
		{"none", nil, nil},
		{"one", inChannels(1, 1, "news"), []int{1}},
		{"one channel", inChannels(100, 1, "news"), []int{1}},
		{"two buckets", inChannels(100, 1, "", "@ana"), []int{1}},
		{"more than a call may have", inChannels(300, 1, "news"), []int{1, 1, 1}},
		{"more bytes than a call may have", inChannels(5, 512<<10, "news"), []int{1, 1, 1}},
	} {
		if _, err := n.History().Append(t.Context(), tt.msgs...); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, trips.take()); diff != "" {
			t.Errorf("%s: script calls of each round trip (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestSeveralMessagesReachOtherNodesInOrder(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	ana := b.connect("ana", "news", "sports")
	if _, err := a.History().Append(t.Context(), inChannels(10, 1, "news", "sports", "elsewhere")...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what ana gets", func() bool { return len(ana.messages()) >= 7 })
	got := make(map[string][]uint64)
	for _, m := range ana.messages() {
		got[m.Channel] = append(got[m.Channel], m.Position.Seq)
	}
	if diff := cmp.Diff(map[string][]uint64{"news": {1, 2, 3, 4}, "sports": {1, 2, 3}}, got); diff != "" {
		t.Errorf("positions that came (-want +got):\n%s", diff)
	}
}

// Whatever they contain, and whichever history has stored them.
func TestSeveralMessagesReachOtherNodesAsTheyAre(t *testing.T) {
	s := redistest.Start(t)
	other := otherHistory{chat.NewMemoryHistory(chat.MemoryLimits{Count: 1000})}
	for name, open := range map[string]func() *node{
		"its own history": func() *node { return start(t, clientOf(s)) },
		"another history": func() *node {
			n := open(t, clientOf(s), redisregistry.WithPrefix("other:"))
			if _, err := n.Start(other, nil); err != nil {
				t.Fatal(err)
			}
			return n
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := open(), open()
			ana := b.connect("ana", "news")
			want := []string{"", "\n", "", "1 2 3", "\t\x01é\u2028", "", ""}
			var msgs []chat.Message
			for i, content := range want {
				msgs = append(msgs, chat.Message{Channel: "news", Sender: strings.Repeat("x", i%3), Content: content})
			}
			history := chat.History(a.History())
			if name == "another history" {
				history = other
			}
			stored, err := history.Append(t.Context(), msgs...)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Publish(t.Context(), stored...); err != nil {
				t.Fatal(err)
			}
			ana.wantGot(t, "news", want...)
			for i, m := range ana.messages() {
				if m.Sender != msgs[i].Sender || m.Position != stored[i].Position {
					t.Errorf("message %d is %+v, want %+v", i, m, stored[i])
				}
			}
		})
	}
}

func TestSeveralMessagesSentAgainAreStoredOnce(t *testing.T) {
	s := redistest.Start(t)
	var armed atomic.Int32
	client := losing(s, &armed, "", 3)
	n := start(t, client, redisregistry.WithTimeout(20*time.Second)) // no probe for 10 s
	n.publish("news", "up")
	armed.Store(1)
	stored, err := n.History().Append(t.Context(), inChannels(6, 1, "news", "news")...)
	if armed.Load() > 0 {
		t.Fatal("no answer was lost")
	}
	if err != nil || stored[5].Position.Seq != 7 {
		t.Errorf("Append = %v, %v; want the last at 7", stored, err)
	}
	wantContents(t, n.History(), "news", chat.Position{}, "up", "x", "x", "x", "x", "x", "x")
}

// A call that has its bucket begin an epoch stores all of its messages in the new one.
func TestMessagesOfACallThatBeginsAnEpochAreAllInIt(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, clientOf(s), longTimeout)
	before := n.publish("news", "1", "2").Position
	admin := s.Client()
	defer admin.Close()
	bucket := bucketOf("news")
	fillBucket(t, admin, fmt.Sprintf("chat:{%d}:positions", bucket))
	channels := []string{"news"}
	for i := 0; len(channels) < 4; i++ {
		if name := fmt.Sprint("other", i); bucketOf(name) == bucket {
			channels = append(channels, name)
		}
	}
	stored, err := n.History().Append(t.Context(), inChannels(8, 1, channels...)...)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range stored {
		if want := uint64(i/len(channels) + 1); m.Position.Seq != want || m.Position.Epoch == before.Epoch || m.Position.Epoch != stored[0].Position.Epoch {
			t.Errorf("message %d of %q is at %v, want %d in a new epoch", i, m.Channel, m.Position, want)
		}
	}
	for _, m := range stored[len(channels):] {
		if last, err := n.History().Last(t.Context(), m.Channel); err != nil || last != m.Position {
			t.Errorf("Last of %q = %v, %v, want %v", m.Channel, last, err, m.Position)
		}
	}
}
