package chat_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// weightOf is what a MemoryHistory counts for a message of append1.
func weightOf(content string) int { return 256 + len("ana") + len(content) }

// historyModel keeps all messages in one list and finds the largest channel by scanning it.
type historyModel struct {
	count, bytes int // limits
	kept         []modelMessage
	last         map[string]uint64
}

type modelMessage struct {
	channel, content string
	seq              uint64
}

// sums returns the bytes and the number of messages of each channel, and the bytes of all.
func (m *historyModel) sums() (bytes, count map[string]int, total int) {
	bytes, count = make(map[string]int), make(map[string]int)
	for _, e := range m.kept {
		bytes[e.channel] += weightOf(e.content)
		count[e.channel]++
		total += weightOf(e.content)
	}
	return bytes, count, total
}

func (m *historyModel) dropOldest(channel string) {
	i := slices.IndexFunc(m.kept, func(e modelMessage) bool { return e.channel == channel })
	m.kept = slices.Delete(m.kept, i, i+1)
}

func (m *historyModel) append(channel, content string) {
	m.last[channel]++
	m.kept = append(m.kept, modelMessage{channel, content, m.last[channel]})
	if _, count, _ := m.sums(); count[channel] > m.count {
		m.dropOldest(channel)
	}
	for {
		bytes, count, total := m.sums()
		if total <= m.bytes || len(m.kept) == 1 {
			return
		}
		largest := ""
		for _, e := range m.kept { // among equals the one with the oldest message
			if bytes[e.channel] > bytes[largest] && (e.channel != channel || count[channel] > 1) {
				largest = e.channel
			}
		}
		m.dropOldest(largest)
	}
}

// after returns what a history returns after a position, first "gone" if that is no longer known.
func (m *historyModel) after(channel string, seq uint64, limit int) []string {
	list := []string{}
	oldest := m.last[channel] + 1
	for _, e := range m.kept {
		if e.channel == channel {
			oldest = min(oldest, e.seq)
		}
	}
	if seq > m.last[channel] || seq+1 < oldest {
		list = append(list, "gone")
		seq = 0
	}
	for _, e := range m.kept {
		if e.channel == channel && e.seq > seq && limit > 0 {
			list = append(list, e.content)
			limit--
		}
	}
	return list
}

// Random calls give what a model gives that scans all channels.
func TestMemoryHistoryEvictsAsAModelDoes(t *testing.T) {
	tests := []struct {
		name               string
		channels           int
		count, bytes, size int // size of the largest content
	}{
		{"few channels", 3, 8, 30_000, 4000},
		{"many channels", 150, 5, 30_000, 500},
		{"contents of one size", 40, 6, 20_000, 0},
		{"less than a message fits", 10, 3, 200, 100},
		{"contents around the limit", 10, 4, 5_000, 6000},
	}
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, uint64(n)))
			h := chat.NewMemoryHistory(chat.MemoryLimits{Count: tt.count, Bytes: tt.bytes})
			model := &historyModel{count: tt.count, bytes: tt.bytes, last: make(map[string]uint64)}
			epochs := make(map[string]string)
			channel := func() string { return fmt.Sprint("c", rng.IntN(1+rng.IntN(tt.channels))) }
			for step := range 2000 {
				var msgs []chat.Message
				for range 1 + rng.IntN(1+rng.IntN(3)) {
					content := fmt.Sprintf("%06d", rng.IntN(1e6)) + strings.Repeat("x", rng.IntN(1+rng.IntN(tt.size+1)))
					msgs = append(msgs, chat.Message{Channel: channel(), Sender: "ana", Content: content})
				}
				stored, err := h.Append(t.Context(), msgs...)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range stored {
					model.append(m.Channel, m.Content)
					epochs[m.Channel] = m.Position.Epoch
					if want := model.last[m.Channel]; m.Position.Seq != want {
						t.Fatalf("step %d: %q got %d, want %d", step, m.Channel, m.Position.Seq, want)
					}
				}
				for range 3 {
					of := channel()
					if epochs[of] == "" {
						continue
					}
					seq, limit := uint64(rng.IntN(int(model.last[of])+2)), rng.IntN(10)
					msgs, err := h.After(t.Context(), of, chat.Position{Epoch: epochs[of], Seq: seq}, chat.Limit{Count: limit})
					got := []string{}
					if errors.Is(err, chat.ErrGone) {
						got = append(got, "gone")
					}
					for _, m := range msgs {
						got = append(got, m.Content)
					}
					if diff := cmp.Diff(model.after(of, seq, limit), got); diff != "" {
						t.Fatalf("step %d: after %d of %q (-want +got):\n%s", step, seq, of, diff)
					}
				}
			}
		})
	}
}

// keptBytes returns what the channels' messages weigh together.
func keptBytes(t *testing.T, h chat.History, channels []string) (bytes int) {
	t.Helper()
	for _, channel := range channels {
		for _, content := range contents(t, h, channel, chat.Position{}, 10_000) {
			bytes += weightOf(content)
		}
	}
	return bytes
}

// Publishers fill the history from all sides, while readers read.
func TestMemoryHistoryHoldsItsLimitsUnderConcurrency(t *testing.T) {
	const limit, writers, large, small, each = 400_000, 8, 4, 100, 1500
	h := chat.NewMemoryHistory(chat.MemoryLimits{Bytes: limit, Count: 300})
	smalls, larges := numbered("@small", small), numbered("large", large)
	var mu sync.Mutex // guards given
	given := make(map[string]map[uint64]bool)
	give := func(msgs []chat.Message) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range msgs {
			if given[m.Channel] == nil {
				given[m.Channel] = make(map[uint64]bool)
			}
			if given[m.Channel][m.Position.Seq] {
				t.Errorf("%q: %d was given twice", m.Channel, m.Position.Seq)
			}
			given[m.Channel][m.Position.Seq] = true
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			rng := rand.New(rand.NewPCG(3, uint64(w)))
			for i := range each {
				msgs := []chat.Message{{Channel: larges[rng.IntN(large)], Sender: "ana", Content: strings.Repeat("x", rng.IntN(800))}}
				if i%50 == 0 { // two or three for each small channel
					msgs = append(msgs, chat.Message{Channel: smalls[(w+i/50*writers)%small], Sender: "ana", Content: "to one"})
				}
				stored, err := h.Append(context.Background(), msgs...)
				if err != nil {
					t.Error(err)
					return
				}
				give(stored)
			}
		})
	}
	for r := range 3 {
		reading.Go(func() {
			all := slices.Concat(larges, smalls[:4])
			at := make(map[string]chat.Position)
			for i := r; ctx.Err() == nil; i++ {
				channel := all[i%len(all)]
				msgs, err := h.After(context.Background(), channel, at[channel], chat.Limit{Count: 40})
				if err != nil && !errors.Is(err, chat.ErrGone) {
					t.Error(err)
					return
				}
				for j, m := range msgs {
					before := at[channel]
					if j == 0 && (err != nil || before == (chat.Position{})) {
						before.Seq = m.Position.Seq - 1 // behind a gap
					}
					if m.Position.Seq != before.Seq+1 || m.Channel != channel {
						t.Errorf("%q: %v of %q follows %v", channel, m.Position, m.Channel, before)
					}
					at[channel] = m.Position
				}
			}
		})
	}
	writing.Wait()
	stop()
	reading.Wait()

	for channel, seqs := range given {
		last, err := h.Last(t.Context(), channel)
		if err != nil || last.Seq != uint64(len(seqs)) {
			t.Errorf("%q: Last = %v, %v after %d messages", channel, last, err, len(seqs))
		}
		for seq := range maps.Keys(seqs) {
			if seq < 1 || seq > uint64(len(seqs)) {
				t.Errorf("%q: %d was given, of %d", channel, seq, len(seqs))
			}
		}
	}
	for _, channel := range smalls {
		if n := len(contents(t, h, channel, chat.Position{}, 100)); n != len(given[channel]) {
			t.Errorf("%q keeps %d of %d messages; a large channel should lose them", channel, n, len(given[channel]))
		}
	}
	// A call that finds too much drops it. So at most a message of each call is missing.
	if got := keptBytes(t, h, slices.Concat(smalls, larges)); got > limit || got < limit-writers*2*weightOf(strings.Repeat("x", 800)) {
		t.Errorf("%d bytes are kept, want %d and hardly less", got, limit)
	}
}

// Concurrent calls that open channels forget exactly as many.
func TestMemoryHistoryRemembersSoManyChannelsUnderConcurrency(t *testing.T) {
	const remembered, openers, surplus = 100_000, 8, 3000
	h := chat.NewMemoryHistory(chat.MemoryLimits{Bytes: 1 << 30})
	everyone := append1(t, h, "", "to everyone")
	channels := numbered("c", remembered-1+surplus)
	given := make([]chat.Position, len(channels))
	var opening sync.WaitGroup
	for o := range openers {
		opening.Go(func() {
			for i := o; i < len(channels); i += openers {
				given[i] = append1(t, h, channels[i], "1")
			}
		})
	}
	opening.Wait()
	wantContents(t, h, "", chat.Position{}, "to everyone")
	if last, err := h.Last(t.Context(), ""); err != nil || last != everyone {
		t.Errorf("everyone's channel is at %v, %v, was at %v", last, err, everyone)
	}
	var forgotten []int
	for i, channel := range channels {
		last, err := h.Last(t.Context(), channel)
		if err != nil {
			t.Fatal(err)
		}
		if last != given[i] {
			forgotten = append(forgotten, i)
		}
	}
	if len(forgotten) != surplus {
		t.Errorf("%d channels are forgotten, want %d", len(forgotten), surplus)
	}
	for _, i := range forgotten[:min(len(forgotten), surplus)] {
		if p := append1(t, h, channels[i], "2"); p == given[i] {
			t.Errorf("%v of %q was given twice", p, channels[i])
		}
	}
}

// What is too old takes no bytes from what is new, in whichever channel.
func TestMemoryHistoryFreesWhatIsTooOld(t *testing.T) {
	const age, limit = time.Hour, 300_000
	old, wantNew := numbered("@old", 300), numbered("new ", 2000)
	fits := limit/weightOf("new 1999") - 100 // the messages of the test's clock take some room
	tests := map[string]func(t *testing.T, h chat.History){
		"after a pause": func(t *testing.T, h chat.History) {
			<-time.After(age + age/16 + time.Second)
			wantContents(t, h, "other", chat.Position{})
		},
		"while others read": func(t *testing.T, h chat.History) {
			for range 1 + (age+age/16)/time.Second {
				<-time.After(time.Second)
				wantContents(t, h, "other", chat.Position{})
			}
		},
		"while others publish": func(t *testing.T, h chat.History) {
			for range 2 + (age+age/16)/time.Minute {
				<-time.After(time.Minute)
				append1(t, h, "ticks", ".")
			}
		},
	}
	for name, wait := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := chat.NewMemoryHistory(chat.MemoryLimits{Age: age, Bytes: limit, Count: 2000})
				for i := range 3 {
					for _, channel := range old {
						append1(t, h, channel, fmt.Sprint(i))
					}
				}
				wait(t, h)
				want := wantNew[:fits]
				for _, content := range want {
					append1(t, h, "news", content)
				}
				if diff := cmp.Diff(want, contents(t, h, "news", chat.Position{}, fits)); diff != "" {
					t.Errorf("news (-want +got):\n%s", diff)
				}
			})
		})
	}
}
