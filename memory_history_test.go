package chat_test

import (
	"context"
	"errors"
	"fmt"
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

// append1 appends a message to a channel and returns its position.
func append1(t testing.TB, h chat.History, channel, content string) chat.Position {
	t.Helper()
	stored, err := h.Append(t.Context(), chat.Message{
		Channel: channel, Sender: "ana", Content: content, Time: time.Now().UTC(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return stored[0].Position
}

// contents is what a history has after a position, or "gone".
func contents(t testing.TB, h chat.History, channel string, p chat.Position, limit int) []string {
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
		if i > 0 && (m.Position.Epoch != p.Epoch || m.Position.Seq != p.Seq+1) {
			t.Errorf("%v follows %v", m.Position, p)
		}
		p = m.Position
	}
	return list
}

func wantContents(t testing.TB, h chat.History, channel string, p chat.Position, want ...string) {
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
	wantContents(t, h, "c", chat.Position{})

	var places []chat.Position
	for i := range 5 {
		p := append1(t, h, "c", fmt.Sprint(i+1))
		if want := (chat.Position{Epoch: start.Epoch, Seq: uint64(i + 1)}); p != want {
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
		after chat.Position
		limit int
		want  []string
	}{
		{"the zero place", chat.Position{}, 10, []string{"1", "2", "3", "4", "5"}},
		{"the zero place, a page", chat.Position{}, 2, []string{"1", "2"}},
		{"before the first", start, 10, []string{"1", "2", "3", "4", "5"}},
		{"one in between", places[1], 10, []string{"3", "4", "5"}},
		{"one in between, a page", places[1], 2, []string{"3", "4"}},
		{"the last but one", places[3], 1, []string{"5"}},
		{"the newest", places[4], 10, []string{}},
		{"nothing asked for", places[1], 0, []string{}},
		{"one to come", chat.Position{Epoch: start.Epoch, Seq: 6}, 10, []string{"gone"}},
		{"far beyond", chat.Position{Epoch: start.Epoch, Seq: 1<<64 - 1}, 10, []string{"gone"}},
		{"another epoch", chat.Position{Epoch: "another", Seq: 2}, 10, []string{"gone"}},
		{"another epoch's beginning", chat.Position{Epoch: "another"}, 10, []string{"gone"}},
		{"no epoch", chat.Position{Seq: 2}, 10, []string{"gone"}},
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
	want.Position = got[0].Position
	back, err := h.After(t.Context(), "@ana", chat.Position{}, chat.Limit{Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]chat.Message{want, want}, append(back, got...)); diff != "" {
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
	var places []chat.Position
	for i := range 5 {
		places = append(places, append1(t, h, "a", fmt.Sprint(i)))
	}
	first := append1(t, h, "b", "b0")
	wantContents(t, h, "a", chat.Position{}, "2", "3", "4")
	wantContents(t, h, "a", places[0], "gone")
	wantContents(t, h, "a", places[1], "2", "3", "4")
	wantContents(t, h, "a", places[4])
	wantContents(t, h, "b", chat.Position{}, "b0")
	wantContents(t, h, "b", first)
}

func TestMemoryHistoryKeepsOneWhenItMayKeepNoMore(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{Count: 1, Bytes: 1})
	for i := range 3 {
		p := append1(t, h, "a", fmt.Sprint(i))
		wantContents(t, h, "a", chat.Position{}, fmt.Sprint(i))
		wantContents(t, h, "a", p)
	}
	append1(t, h, "b", "b")
	wantContents(t, h, "a", chat.Position{}) // of all channels together
}

func TestMemoryHistoryForgetsWithAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := chat.NewMemoryHistory(chat.MemoryLimits{Age: time.Hour})
		first := append1(t, h, "a", "0")
		<-time.After(30 * time.Minute)
		second := append1(t, h, "a", "1")
		append1(t, h, "b", "b0")
		<-time.After(30 * time.Minute)
		wantContents(t, h, "a", chat.Position{}, "0", "1") // just
		<-time.After(1)
		wantContents(t, h, "a", chat.Position{}, "1")
		wantContents(t, h, "a", first, "1")
		<-time.After(time.Hour)
		wantContents(t, h, "a", chat.Position{})
		wantContents(t, h, "b", chat.Position{})
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
	var first chat.Position
	for i := range 300 {
		p := append1(t, h, fmt.Sprint("c", i%3), content)
		if i == 0 {
			first = p
		}
	}
	kept := 0
	for i := range 3 {
		n := len(contents(t, h, fmt.Sprint("c", i), chat.Position{}, 1000))
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

// One channel, or a few, do not push out what others keep.
func TestMemoryHistoryEvictsFromTheLargestChannel(t *testing.T) {
	const limit = 1 << 20
	h := chat.NewMemoryHistory(chat.MemoryLimits{Bytes: limit})
	append1(t, h, "", "to everyone")
	append1(t, h, "@ana", "to ana")
	for i := range 20 {
		append1(t, h, "small", fmt.Sprint(i))
	}
	for i := range 300 {
		append1(t, h, fmt.Sprint("large", i%3), strings.Repeat("x", 32<<10))
	}
	wantContents(t, h, "", chat.Position{}, "to everyone")
	wantContents(t, h, "@ana", chat.Position{}, "to ana")
	if n := len(contents(t, h, "small", chat.Position{}, 100)); n != 20 {
		t.Errorf("the small channel keeps %d messages, want its 20", n)
	}
	for i := range 3 {
		if n := len(contents(t, h, fmt.Sprint("large", i), chat.Position{}, 100)); n < 9 || n > 11 {
			t.Errorf("large%d keeps %d messages, want a third of what fits", i, n)
		}
	}
	// The large ones make room for the small one, and never it for them.
	for range 500 {
		append1(t, h, "small", strings.Repeat("y", 100))
	}
	if n := len(contents(t, h, "small", chat.Position{}, 1000)); n < 500 {
		t.Errorf("the small channel keeps %d messages, want more than 500", n)
	}
}

// What was just stored stays, however large it is and however little the others keep.
func TestMemoryHistoryKeepsWhatIsNew(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{Bytes: 10_000})
	for i := range 50 {
		channel := fmt.Sprint("c", i)
		p := append1(t, h, channel, strings.Repeat("x", 200*i))
		if got := contents(t, h, channel, chat.Position{Epoch: p.Epoch}, 1); len(got) != 1 || got[0] == "gone" {
			t.Errorf("%d bytes are gone when they are stored", 200*i)
		}
	}
}

// The order of eviction is that of a plain search, whatever happens.
func TestMemoryHistoryKeepsWhatAModelKeeps(t *testing.T) {
	const limit, overhead = 20_000, 256
	rng := rand.New(rand.NewPCG(1, 2))
	h := chat.NewMemoryHistory(chat.MemoryLimits{Bytes: limit, Count: 12})
	type entry struct{ content, channel string }
	var all []entry // oldest first
	size := func(channel string) (bytes, count int) {
		for _, e := range all {
			if e.channel == channel || channel == "all" {
				bytes += len(e.content) + overhead + len("ana")
				count++
			}
		}
		return bytes, count
	}
	remove := func(channel string) {
		i := slices.IndexFunc(all, func(e entry) bool { return e.channel == channel })
		all = slices.Delete(all, i, i+1)
	}
	for n := range 3000 {
		channel := fmt.Sprint("c", rng.IntN(1+rng.IntN(20)))
		content := fmt.Sprint(n, strings.Repeat("x", rng.IntN(1+rng.IntN(3000))))
		append1(t, h, channel, content)
		all = append(all, entry{content, channel})
		if _, count := size(channel); count > 12 {
			remove(channel)
		}
		for bytes, count := size("all"); bytes > limit && count > 1; bytes, count = size("all") {
			largest, most := "", 0
			for _, e := range all[:len(all)-1] { // the newest stays
				if bytes, count := size(e.channel); bytes > most && (e.channel != channel || count > 1) {
					largest, most = e.channel, bytes
				}
			}
			remove(largest)
		}
		if n%20 > 0 {
			continue
		}
		for i := range 20 {
			want := []string{}
			for _, e := range all {
				if e.channel == fmt.Sprint("c", i) {
					want = append(want, e.content)
				}
			}
			if diff := cmp.Diff(want, contents(t, h, fmt.Sprint("c", i), chat.Position{}, 100)); diff != "" {
				t.Fatalf("after %d messages c%d (-want +got):\n%s", n+1, i, diff)
			}
		}
	}
}

// New channels never push out everyone's channel, nor one in use while there are others.
func TestNewChannelsPushOutThoseThatAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const channels = 100_000 // what it remembers
		h := chat.NewMemoryHistory(chat.MemoryLimits{Age: time.Hour, Bytes: 1 << 30})
		for i := range channels - 3 {
			append1(t, h, fmt.Sprint("old", i), "old")
		}
		<-time.After(2 * time.Hour)
		everyone := append1(t, h, "", "to everyone")
		ana := append1(t, h, "@ana", "to ana")
		news := append1(t, h, "news", "1")
		before := map[string]chat.Position{}
		for i := range 100 { // users who never got anything
			channel := fmt.Sprint("@user", i)
			before[channel], _ = h.Last(t.Context(), channel)
		}
		for i := range channels - 3 {
			append1(t, h, fmt.Sprint("spam", i), "spam")
		}
		for channel, p := range map[string]chat.Position{"": everyone, "@ana": ana, "news": news} {
			if last, err := h.Last(t.Context(), channel); err != nil || last != p {
				t.Errorf("%q is at %v, %v, was at %v", channel, last, err, p)
			}
			if got := contents(t, h, channel, chat.Position{}, 10); len(got) != 1 {
				t.Errorf("%q keeps %q", channel, got)
			}
		}
		news = append1(t, h, "news", "2") // is used
		for i := range 10 * channels / 8 {
			append1(t, h, fmt.Sprint("more", i), "spam")
			if i%50_000 == 0 {
				news = append1(t, h, "news", fmt.Sprint(i))
			}
		}
		for channel, p := range map[string]chat.Position{"": everyone, "news": news} {
			if last, err := h.Last(t.Context(), channel); err != nil || last != p {
				t.Errorf("%q is at %v, %v, was at %v", channel, last, err, p)
			}
		}
		if last, _ := h.Last(t.Context(), "@ana"); last == ana {
			t.Error("a channel that nobody uses is remembered for ever")
		}
		// Of the users' channels @ana alone was forgotten.
		changed := 0
		for channel, p := range before {
			if last, _ := h.Last(t.Context(), channel); last != p {
				changed++
			}
		}
		if changed > 3 {
			t.Errorf("%d of %d users' channels have another epoch", changed, len(before))
		}
	})
}

func TestMemoryHistoryIsContiguousUnderConcurrency(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{Count: 200})
	const writers, each, channels = 8, 500, 3
	ctx, done := context.WithCancel(t.Context())
	var writing, reading sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[string]map[chat.Position]string)
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				channel := fmt.Sprint("c", i%channels)
				stored, err := h.Append(ctx, chat.Message{Channel: channel, Content: fmt.Sprint(w, " ", i), Time: time.Now()})
				if err != nil {
					t.Error(err)
					return
				}
				m := stored[0]
				mu.Lock()
				if seen[channel] == nil {
					seen[channel] = make(map[chat.Position]string)
				}
				if other, taken := seen[channel][m.Position]; taken {
					t.Errorf("%v was given to %q and %q", m.Position, other, m.Content)
				}
				seen[channel][m.Position] = m.Content
				mu.Unlock()
			}
		})
	}
	for c := range channels {
		reading.Go(func() { // reads on, a few at a time, and begins again when it fell behind
			channel := fmt.Sprint("c", c)
			var at chat.Position
			for ctx.Err() == nil {
				msgs, err := h.After(context.Background(), channel, at, chat.Limit{Count: 7})
				if errors.Is(err, chat.ErrGone) {
					at = chat.Position{}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, m := range msgs {
					if at != (chat.Position{}) && m.Position.Seq != at.Seq+1 {
						t.Errorf("%v follows %v", m.Position, at)
					}
					at = m.Position
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
		msgs, err := h.After(t.Context(), channel, chat.Position{}, chat.Limit{Count: 1000})
		if err != nil || len(msgs) != 200 {
			t.Errorf("%s: keeps %d, %v, want 200", channel, len(msgs), err)
		}
		for _, m := range msgs {
			if places[m.Position] != m.Content {
				t.Errorf("%s: %v holds %q, was given to %q", channel, m.Position, m.Content, places[m.Position])
			}
		}
	}
}

// A history remembers a limited number of channels. The positions of channels that it
// has forgotten must never be used again.
func TestAForgottenChannelBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := chat.NewMemoryHistory(chat.MemoryLimits{Age: time.Minute})
		const channels = 100_000 // what it remembers
		places := make(map[string]chat.Position, channels)
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
