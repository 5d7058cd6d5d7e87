package chat_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// append1 appends a message to a channel and returns its place.
func append1(t testing.TB, h chat.History, channel, content string) chat.Place {
	t.Helper()
	m, err := h.Append(t.Context(), chat.Message{
		Channel: channel, Sender: "ana", Content: content, Time: time.Now().UTC(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m.Place
}

// contents is what a history has after a place, or "gone".
func contents(t testing.TB, h chat.History, channel string, p chat.Place, limit int) []string {
	t.Helper()
	msgs, err := h.After(t.Context(), channel, p, chat.Limit{Count: limit})
	if errors.Is(err, chat.ErrGone) {
		return []string{"gone"}
	}
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for i, m := range msgs {
		list = append(list, m.Content)
		if i > 0 && (m.Place.Epoch != p.Epoch || m.Place.Seq != p.Seq+1) {
			t.Errorf("%v follows %v", m.Place, p)
		}
		p = m.Place
	}
	return list
}

func wantContents(t testing.TB, h chat.History, channel string, p chat.Place, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, contents(t, h, channel, p, 1000)); diff != "" {
		t.Errorf("after %v of %q (-want +got):\n%s", p, channel, diff)
	}
}

func TestMemoryHistoryReadsBackWhatFollows(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{})
	start, err := h.Last(t.Context(), "c")
	if err != nil || start.Epoch == "" || start.Seq != 0 {
		t.Fatalf("Last of an empty channel = %v, %v", start, err)
	}
	wantContents(t, h, "c", start)
	wantContents(t, h, "c", chat.Place{})

	var places []chat.Place
	for i := range 5 {
		p := append1(t, h, "c", fmt.Sprint(i+1))
		if want := (chat.Place{Epoch: start.Epoch, Seq: uint64(i + 1)}); p != want {
			t.Errorf("place = %v, want %v", p, want)
		}
		places = append(places, p)
		append1(t, h, "other", "x")
	}
	if last, _ := h.Last(t.Context(), "c"); last != places[4] {
		t.Errorf("Last = %v, want %v", last, places[4])
	}
	tests := []struct {
		name  string
		after chat.Place
		limit int
		want  []string
	}{
		{"the zero place", chat.Place{}, 10, []string{"1", "2", "3", "4", "5"}},
		{"the zero place, a page", chat.Place{}, 2, []string{"1", "2"}},
		{"before the first", start, 10, []string{"1", "2", "3", "4", "5"}},
		{"one in between", places[1], 10, []string{"3", "4", "5"}},
		{"one in between, a page", places[1], 2, []string{"3", "4"}},
		{"the last but one", places[3], 1, []string{"5"}},
		{"the newest", places[4], 10, []string{}},
		{"nothing asked for", places[1], 0, []string{}},
		{"one to come", chat.Place{Epoch: start.Epoch, Seq: 6}, 10, []string{"gone"}},
		{"far beyond", chat.Place{Epoch: start.Epoch, Seq: 1<<64 - 1}, 10, []string{"gone"}},
		{"another epoch", chat.Place{Epoch: "another", Seq: 2}, 10, []string{"gone"}},
		{"another epoch's beginning", chat.Place{Epoch: "another"}, 10, []string{"gone"}},
		{"no epoch", chat.Place{Seq: 2}, 10, []string{"gone"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, contents(t, h, "c", tt.after, tt.limit)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMemoryHistoryStoresAMessageAsItIs(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{})
	want := chat.Message{Channel: "@ana", Sender: "bob", Content: "é", Time: time.Now().UTC().Truncate(time.Millisecond)}
	got, err := h.Append(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	want.Place = got.Place
	back, err := h.After(t.Context(), "@ana", chat.Place{}, chat.Limit{Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]chat.Message{want, want}, append(back, got)); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestEachMemoryHistoryHasItsEpoch(t *testing.T) {
	a, b := chat.NewMemoryHistory(chat.MemoryLimits{}), chat.NewMemoryHistory(chat.MemoryLimits{})
	p := append1(t, a, "", "before the restart")
	append1(t, b, "", "after it")
	wantContents(t, b, "", p, "gone")
}

func TestMemoryHistoryKeepsSoManyOfEachChannel(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{Count: 3})
	var places []chat.Place
	for i := range 5 {
		places = append(places, append1(t, h, "a", fmt.Sprint(i)))
	}
	first := append1(t, h, "b", "b0")
	wantContents(t, h, "a", chat.Place{}, "2", "3", "4")
	wantContents(t, h, "a", places[0], "gone")
	wantContents(t, h, "a", places[1], "2", "3", "4")
	wantContents(t, h, "a", places[4])
	wantContents(t, h, "b", chat.Place{}, "b0")
	wantContents(t, h, "b", first)
}

func TestMemoryHistoryKeepsOneWhenItMayKeepNoMore(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{Count: 1, Bytes: 1})
	for i := range 3 {
		p := append1(t, h, "a", fmt.Sprint(i))
		wantContents(t, h, "a", chat.Place{}, fmt.Sprint(i))
		wantContents(t, h, "a", p)
	}
	append1(t, h, "b", "b")
	wantContents(t, h, "a", chat.Place{}) // of all channels together
}

func TestMemoryHistoryForgetsWithAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := chat.NewMemoryHistory(chat.MemoryLimits{Age: time.Hour})
		first := append1(t, h, "a", "0")
		<-time.After(30 * time.Minute)
		second := append1(t, h, "a", "1")
		append1(t, h, "b", "b0")
		<-time.After(30 * time.Minute)
		wantContents(t, h, "a", chat.Place{}, "0", "1") // just
		<-time.After(1)
		wantContents(t, h, "a", chat.Place{}, "1")
		wantContents(t, h, "a", first, "1")
		<-time.After(time.Hour)
		wantContents(t, h, "a", chat.Place{})
		wantContents(t, h, "b", chat.Place{})
		wantContents(t, h, "a", first, "gone")
		wantContents(t, h, "a", second)
		if last, _ := h.Last(t.Context(), "a"); last != second {
			t.Errorf("Last = %v, want %v", last, second)
		}
		if next := append1(t, h, "a", "2"); next.Epoch != second.Epoch || next.Seq != second.Seq+1 {
			t.Errorf("place = %v after %v", next, second)
		}
		wantContents(t, h, "a", second, "2")
	})
}

func TestMemoryHistoryKeepsSoManyBytes(t *testing.T) {
	const limit = 100_000
	h := chat.NewMemoryHistory(chat.MemoryLimits{Bytes: limit})
	content := strings.Repeat("x", 1000)
	var first chat.Place
	for i := range 300 {
		p := append1(t, h, fmt.Sprint("c", i%3), content)
		if i == 0 {
			first = p
		}
	}
	kept := 0
	for i := range 3 {
		n := len(contents(t, h, fmt.Sprint("c", i), chat.Place{}, 1000))
		if n < 20 || n > 33 {
			t.Errorf("channel %d keeps %d messages, want a third of what fits", i, n)
		}
		kept += n
	}
	if kept*len(content) > limit || kept*len(content) < limit/2 {
		t.Errorf("%d bytes are kept, want at most %d and not much less", kept*len(content), limit)
	}
	wantContents(t, h, "c0", first, "gone")
}

func TestMemoryHistoryIsContiguousUnderConcurrency(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{Count: 200})
	const writers, each, channels = 8, 500, 3
	ctx, done := context.WithCancel(t.Context())
	var writing, reading sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[string]map[chat.Place]string)
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				channel := fmt.Sprint("c", i%channels)
				m, err := h.Append(ctx, chat.Message{Channel: channel, Content: fmt.Sprint(w, " ", i), Time: time.Now()})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[channel] == nil {
					seen[channel] = make(map[chat.Place]string)
				}
				if other, taken := seen[channel][m.Place]; taken {
					t.Errorf("%v was given to %q and %q", m.Place, other, m.Content)
				}
				seen[channel][m.Place] = m.Content
				mu.Unlock()
			}
		})
	}
	for c := range channels {
		reading.Go(func() { // reads on, a few at a time, and begins again when it fell behind
			channel := fmt.Sprint("c", c)
			var at chat.Place
			for ctx.Err() == nil {
				msgs, err := h.After(context.Background(), channel, at, chat.Limit{Count: 7})
				if errors.Is(err, chat.ErrGone) {
					at = chat.Place{}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, m := range msgs {
					if at != (chat.Place{}) && m.Place.Seq != at.Seq+1 {
						t.Errorf("%v follows %v", m.Place, at)
					}
					at = m.Place
				}
			}
		})
	}
	writing.Wait()
	done()
	reading.Wait()
	for channel, places := range seen {
		last, err := h.Last(t.Context(), channel)
		if err != nil || last.Seq != uint64(len(places)) {
			t.Errorf("%s: Last = %v, %v, want %d places without a hole", channel, last, err, len(places))
		}
		msgs, err := h.After(t.Context(), channel, chat.Place{}, chat.Limit{Count: 1000})
		if err != nil || len(msgs) != 200 {
			t.Errorf("%s: keeps %d, %v, want 200", channel, len(msgs), err)
		}
		for _, m := range msgs {
			if places[m.Place] != m.Content {
				t.Errorf("%s: %v holds %q, was given to %q", channel, m.Place, m.Content, places[m.Place])
			}
		}
	}
}

// TestAForgottenChannelBeginsAnew fills a history with more channels than it
// remembers: the places of those forgotten must never come again.
func TestAForgottenChannelBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := chat.NewMemoryHistory(chat.MemoryLimits{Age: time.Minute})
		const channels = 100_000 // what it remembers
		places := make(map[string]chat.Place, channels)
		for i := range channels {
			channel := fmt.Sprint("c", i)
			places[channel] = append1(t, h, channel, "old")
		}
		<-time.After(time.Hour)
		wantContents(t, h, "c0", places["c0"]) // expires all
		for i := range 10 {
			append1(t, h, fmt.Sprint("new", i), "new")
		}
		forgotten := 0
		for channel, old := range places {
			last, err := h.Last(t.Context(), channel)
			if err != nil {
				t.Fatal(err)
			}
			if last == old {
				wantContents(t, h, channel, old)
				continue
			}
			forgotten++
			if last.Epoch == old.Epoch {
				t.Errorf("%s went from %v to %v", channel, old, last)
			}
			wantContents(t, h, channel, old, "gone")
			p := append1(t, h, channel, "again")
			if p.Epoch == old.Epoch || p.Seq != 1 {
				t.Errorf("%s begins anew at %v, was at %v", channel, p, old)
			}
			break // others are forgotten for it
		}
		if forgotten == 0 {
			t.Error("no channel was forgotten")
		}
	})
}

func BenchmarkMemoryHistoryAppend(b *testing.B) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{})
	m := chat.Message{Channel: "news", Sender: "ana", Content: strings.Repeat("x", 128), Time: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Append(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
