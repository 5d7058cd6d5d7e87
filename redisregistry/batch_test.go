package redisregistry_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// longTimeout is for nodes whose Redis is stopped for a moment: nothing fails meanwhile.
var longTimeout = redisregistry.WithTimeout(20 * time.Second)

// inOneBatch makes calls that append while Redis answers nothing to a call before them: these
// share the next batch. meanwhile is called when they wait. trips is a hook of the node's client.
func inOneBatch(t *testing.T, s *redistest.Server, n *node, trips *roundTrips, calls []func(), meanwhile func()) {
	t.Helper()
	n.publish("before", "up") // Redis learns the script
	trips.take()
	s.Stop()
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := n.try("before", "before the batch"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the call before the batch", func() bool { return trips.count() > 0 })
	for _, call := range calls {
		all.Go(call)
	}
	<-time.After(200 * time.Millisecond) // nothing shows that they wait
	meanwhile()
	s.Continue()
	all.Wait()
	if got := len(trips.take()); got != 2 {
		t.Errorf("%d calls of the script, want 2: one before, and one for the batch", got)
	}
}

// answers is what the callers of a batch got, by the content that they published.
type answers struct {
	mu      sync.Mutex // guards the following
	stored  map[string]chat.Message
	refused map[string]error
}

// publisher returns a call that publishes.
func (a *answers) publisher(n *node, channel, content string) func() {
	return func() {
		m, err := n.try(channel, content)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.stored == nil {
			a.stored, a.refused = make(map[string]chat.Message), make(map[string]error)
		}
		if err != nil {
			a.refused[content] = err
		} else {
			a.stored[content] = m
		}
	}
}

// What Redis rejects of one channel or bucket is an error of its publishers. The others'
// messages are stored and delivered, once, also if the call was sent again because its
// connection broke before the answer.
func TestABatchThatRedisAcceptsInPart(t *testing.T) {
	bucket := bucketOf("broken")
	var beside []string // channels of the same bucket
	for i := 0; len(beside) < 2; i++ {
		if name := fmt.Sprint("beside", i); bucketOf(name) == bucket {
			beside = append(beside, name)
		}
	}
	positions, stream := fmt.Sprintf("chat:{%d}:positions", bucket), fmt.Sprintf("chat:{%d}:m:broken", bucket)
	tests := []struct {
		name, breaks string
		refused      []string // channels
	}{
		{"a stream of another type", "SET " + stream + " x", []string{"broken"}},
		{"a position that is no number", "HSET " + positions + " :broken x", []string{"broken"}},
		{"positions of another type", "SET " + positions + " x", append([]string{"broken"}, beside...)},
		{"a stream that is full", "XADD " + stream + " 18446744073709551615-18446744073709551615 x y", []string{"broken"}},
	}
	for _, tt := range tests {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, ", sent again ", again), func(t *testing.T) {
				t.Parallel()
				s := redistest.Start(t)
				var armed atomic.Int32
				var trips roundTrips
				client := losing(s, &armed, "the batch", 3)
				client.AddHook(&trips)
				a, b := start(t, client, longTimeout), start(t, clientOf(s), longTimeout)
				channels := append([]string{"broken", "", "@ana", "news", "sports"}, beside...)
				ana, bob := a.connect("ana", channels[3:]...), b.connect("ana", channels[3:]...)
				for _, channel := range channels {
					a.publish(channel, "up")
				}
				admin(t, s, tt.breaks)

				var got answers
				var calls []func()
				for i := range 60 {
					calls = append(calls, got.publisher(a, channels[i%len(channels)], fmt.Sprint("the batch, ", i)))
				}
				inOneBatch(t, s, a, &trips, calls, func() {
					if again {
						armed.Store(1)
					}
				})
				if armed.Load() > 0 {
					t.Error("no answer was lost")
				}
				want := make(map[string][]string) // by channel, what was acknowledged
				for i := range 60 {
					channel, content := channels[i%len(channels)], fmt.Sprint("the batch, ", i)
					if refused := got.refused[content] != nil; refused != slices.Contains(tt.refused, channel) {
						t.Errorf("%q in %q: error %v", content, channel, got.refused[content])
					}
					if m, ok := got.stored[content]; ok {
						if n := int(m.Position.Seq); len(want[channel]) < n {
							want[channel] = append(want[channel], make([]string, n-len(want[channel]))...)
						}
						want[channel][m.Position.Seq-1] = content
					}
				}
				for channel, contents := range want {
					contents[0] = "up"
					for _, r := range []*receiver{ana, bob} {
						r.wantGot(t, channel, contents...)
					}
					wantContents(t, a.History(), channel, chat.Position{}, contents...)
				}
			})
		}
	}
}

// While things break under many publishers, what was acknowledged is delivered on two nodes,
// once and in order.
func TestBatchesWhileThingsBreak(t *testing.T) {
	tests := map[string]func(t *testing.T, s *redistest.Server, f *traffic){
		"a full Redis": func(t *testing.T, s *redistest.Server, f *traffic) {
			for range 3 {
				refused := f.refused()
				admin(t, s, "CONFIG SET maxmemory 1")
				eventually(t, "messages to be refused", func() bool { return f.refused() > refused+10 })
				admin(t, s, "CONFIG SET maxmemory 0")
				f.goesOn()
			}
		},
		"connections that break": func(t *testing.T, s *redistest.Server, f *traffic) {
			for range 20 {
				admin(t, s, "CLIENT KILL TYPE normal")
				f.goesOn()
			}
		},
		"forgotten scripts": func(t *testing.T, s *redistest.Server, f *traffic) {
			for range 20 {
				admin(t, s, "SCRIPT FLUSH")
				f.goesOn()
			}
		},
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, "--appendfsync", "everysec")
			lease := redisregistry.WithLease(30 * time.Second) // so that nobody leaves a full Redis
			nodes := []*node{start(t, clientOf(s), lease), start(t, clientOf(s), lease)}
			var channels []string
			for i := range 16 {
				channels = append(channels, fmt.Sprint("news", i))
			}
			ana, bob := nodes[0].connect("ana", channels...), nodes[1].connect("bob", channels...)
			f := publishTo(t, append(nodes, nodes...), time.Millisecond, channels...)
			f.goesOn()
			fault(t, s, f)
			f.goesOn()
			f.end(ana, bob)
		})
	}
}

// Whenever an epoch begins, no position has two messages, and each is where its publisher was
// told.
func TestEpochsThatBeginWhileBatchesRun(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "everysec")
	nodes := []*node{start(t, clientOf(s)), start(t, clientOf(s))}
	client := s.Client()
	defer client.Close()
	var channels []string
	for i := range 16 {
		channels = append(channels, fmt.Sprint("news", i))
	}
	f := publishTo(t, append(nodes, nodes...), time.Millisecond, channels...)
	f.goesOn()
	for i := range 6 {
		var err error
		if i%2 == 0 {
			err = client.FlushAll(t.Context()).Err()
		} else { // one bucket only
			err = client.Del(t.Context(), fmt.Sprintf("chat:{%d}:positions", bucketOf(channels[i]))).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
		f.goesOn()
	}
	for _, n := range nodes {
		n.awaitHealth(true)
	}
	f.goesOn()
	close(f.stop)
	f.done.Wait()
	for _, channel := range channels {
		at := make(map[chat.Position]string)
		epochs := make(map[string]bool)
		for _, m := range f.acked[channel] {
			if other, used := at[m.Position]; used {
				t.Errorf("%v of %q has %q and %q", m.Position, channel, other, m.Content)
			}
			at[m.Position] = m.Content
			epochs[m.Position.Epoch] = true
		}
		if len(epochs) < 3 {
			t.Errorf("%q had %d epochs, want one after each loss", channel, len(epochs))
		}
		msgs, err := nodes[0].History().After(t.Context(), channel, chat.Position{}, chat.Limit{Count: 10_000})
		if err != nil || len(msgs) == 0 {
			t.Fatal(len(msgs), err)
		}
		stored := make(map[chat.Position]string)
		for _, m := range msgs {
			stored[m.Position] = m.Content
		}
		for p, content := range at {
			if got, kept := stored[p]; p.Epoch == msgs[0].Position.Epoch && p.Seq >= msgs[0].Position.Seq && got != content {
				t.Errorf("%v of %q is %q (%t), want %q", p, channel, got, kept, content)
			}
		}
	}
}

// Batches of every size, in one channel and in many, on one server and in a Cluster.
func TestBatchesOfEverySize(t *testing.T) {
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t, "--appendfsync", "everysec")
		testBatchesOfEverySize(t, start(t, clientOf(s)))
	})
	t.Run("Cluster", func(t *testing.T) {
		t.Parallel()
		testBatchesOfEverySize(t, start(t, clusterClients(redistest.Cluster(t, 0, "--appendfsync", "everysec"))()))
	})
}

func testBatchesOfEverySize(t *testing.T, n *node) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, channels := range []int{1, 2, 7, 40, 300} {
		for _, size := range []int{1, 2, 3, 10, 63, 64, 65, 127, 128, 129, 200, 255, 256, 257, 300} {
			prefix := fmt.Sprintf("of%d.%d.", size, channels)
			var msgs []chat.Message
			want := make(map[string][]string) // by channel
			for i := range size {
				channel := prefix + fmt.Sprint(random.IntN(channels))
				content := strings.Repeat("é", random.IntN(40)) + fmt.Sprint(i)
				want[channel] = append(want[channel], content)
				msgs = append(msgs, chat.Message{Channel: channel, Content: content})
			}
			stored, err := n.History().Append(t.Context(), msgs...)
			if err != nil {
				t.Fatalf("%d messages in %d channels: %v", size, channels, err)
			}
			got := make(map[string][]string)
			for i, m := range stored {
				got[m.Channel] = append(got[m.Channel], m.Content)
				if m.Position.Seq != uint64(len(got[m.Channel])) || m.Channel != msgs[i].Channel || m.Content != msgs[i].Content {
					t.Errorf("message %d of %d is %+v, want %d of %q", i, size, m, len(got[m.Channel]), msgs[i].Channel)
				}
			}
			read := make(map[string][]string)
			for channel := range want {
				read[channel] = contents(t, n.History(), channel, chat.Position{}, 1000)
			}
			if diff := cmp.Diff(want, read); diff != "" {
				t.Errorf("%d messages in %d channels (-want +got):\n%s", size, channels, diff)
			}
		}
	}
}

// A message whose caller gives up before its batch was sent is not stored; afterwards it is,
// and it is delivered.
func TestACallerThatGivesUp(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var trips roundTrips
	client := clientOf(s)
	client.AddHook(&trips)
	a, b := start(t, client, longTimeout), start(t, clientOf(s), longTimeout)
	ana, bob := a.connect("ana", "news"), b.connect("bob", "news")
	a.publish("news", "up")

	giveUp := func(ctx context.Context, content string) {
		if _, err := a.History().Append(ctx, chat.Message{Channel: "news", Content: content}); !errors.Is(err, context.Canceled) {
			t.Errorf("Append of %q = %v, want that the context was cancelled", content, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var gone sync.WaitGroup
	gone.Add(1)
	var got answers
	inOneBatch(t, s, a, &trips, []func(){
		func() { defer gone.Done(); giveUp(ctx, "given up before") },
		got.publisher(a, "news", "waits"),
	}, func() {
		cancel()
		gone.Wait() // while Redis answers nothing
	})
	if err := got.refused["waits"]; err != nil {
		t.Error(err)
	}

	s.Stop()
	ctx, cancel = context.WithCancel(t.Context())
	gone.Go(func() { giveUp(ctx, "given up after") })
	eventually(t, "the call to be sent", func() bool { return trips.count() > 0 })
	cancel()
	gone.Wait()
	s.Continue()
	a.publish("news", "last")
	for _, r := range []*receiver{ana, bob} {
		r.wantGot(t, "news", "up", "waits", "given up after", "last")
	}
}

// Callers whose answer is lost for good get errors. Their messages are delivered once.
func TestABatchWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var armed atomic.Int32
	var trips roundTrips
	client := losing(s, &armed, "the batch", -1)
	client.AddHook(&trips)
	a, b := start(t, client, longTimeout), start(t, clientOf(s), longTimeout)
	ana, bob := a.connect("ana", "news"), b.connect("bob", "news")
	var got answers
	var calls []func()
	var want []string
	for i := range 40 {
		want = append(want, fmt.Sprint("the batch, ", i))
		calls = append(calls, got.publisher(a, "news", want[i]))
	}
	inOneBatch(t, s, a, &trips, calls, func() { armed.Store(1) })
	if refused := slices.Sorted(maps.Keys(got.refused)); len(refused) != len(want) {
		t.Errorf("refused %q, want all", refused)
	}
	slices.Sort(want)
	for _, r := range []*receiver{ana, bob} {
		eventually(t, "the messages", func() bool { return len(r.of("news")) >= len(want) })
		if diff := cmp.Diff(want, slices.Sorted(slices.Values(r.of("news")))); diff != "" {
			t.Errorf("%s got (-want +got):\n%s", r.session, diff)
		}
	}
}

// A caller with many messages waits in line for each of its batches.
func TestAnotherCallerNeedNotWaitForManyMessages(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var trips roundTrips
	client := clientOf(s)
	client.AddHook(&trips)
	n := start(t, client, longTimeout)
	n.publish("before", "up")
	trips.take()
	s.Stop()
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := n.History().Append(t.Context(), inChannels(1000, 1, "news")...); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the first of them to be sent", func() bool { return trips.count() > 0 })
	all.Go(func() {
		if m, err := n.try("news", "one"); err != nil || m.Position.Seq != 129 {
			t.Errorf("one message is at %v, %v; want it right behind the first 128", m.Position, err)
		}
	})
	<-time.After(200 * time.Millisecond) // nothing shows that it waits
	s.Continue()
	all.Wait()
}

// The work of Redis is shared by the messages of a batch.
func TestABatchTakesFewCommands(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, clientOf(s), longTimeout) // no probe for 10 s
	n.publish("news", "up")
	for _, tt := range []struct {
		name string
		msgs []chat.Message
		most float64 // commands of a message
	}{
		{"one channel", inChannels(64, 100, "news"), 1.5},
		{"two channels", inChannels(64, 100, "news", "@ana"), 1.6},
		{"one message", inChannels(1, 100, "news"), 11},
	} {
		if _, err := n.History().Append(t.Context(), tt.msgs...); err != nil { // channels begin
			t.Fatal(err)
		}
		before := costOf(t, s)
		if _, err := n.History().Append(t.Context(), tt.msgs...); err != nil {
			t.Fatal(err)
		}
		_, after := before.now(t)
		if got := (after - before.commands) / float64(len(tt.msgs)); got > tt.most {
			t.Errorf("%s: %.1f commands a message, want at most %v", tt.name, got, tt.most)
		}
	}
}

// It would be decoded as several messages.
func TestAMessageWithANULIsRejected(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, clientOf(s))
	other := open(t, clientOf(s), redisregistry.WithPrefix("other:"))
	if _, err := other.Start(otherHistory{chat.NewMemoryHistory(chat.MemoryLimits{Count: 10})}, nil); err != nil {
		t.Fatal(err)
	}
	for _, m := range []chat.Message{{Channel: "news", Content: "a\x00b"}, {Channel: "news", Sender: "a\x00", Content: "b"}} {
		if _, err := n.History().Append(t.Context(), m); err == nil {
			t.Errorf("%q by %q was stored", m.Content, m.Sender)
		}
		m.Position = chat.Position{Epoch: "e", Seq: 1}
		if err := other.Publish(t.Context(), m); err == nil {
			t.Errorf("%q by %q was published", m.Content, m.Sender)
		}
	}
}

// refused is how many publishes failed.
func (f *traffic) refused() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// count is how many round trips there were since the last take.
func (r *roundTrips) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls)
}
