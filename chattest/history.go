package chattest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// TestHistory tests a history. It calls open once for each test. open returns one empty
// History, or several on one empty backend, as nodes have them; the tests use them in turn.
// open closes things with t.Cleanup. A history must keep at least 20,000 messages of a
// channel. [TestRetention], [TestRetentionByAge] and [TestHoles] test the rest.
func TestHistory(t *testing.T, open func(t *testing.T) []chat.History) {
	tests := []struct {
		name string
		run  func(archive)
	}{
		{"PositionsCountUpByOne", testPositions},
		{"PositionsAreContiguousUnderConcurrency", testPositionsRace},
		{"PositionsAreContiguousWhenCallersGiveUp", testPositionsGivenUp},
		{"NoMessagesAreNoError", testAppendNone},
		{"SeveralAreStoredInOneCall", testAppendSeveral},
		{"SeveralAreContiguousUnderConcurrency", testAppendSeveralRace},
		{"SeveralAreContiguousWhenCallersGiveUp", testAppendSeveralGivenUp},
		{"AfterReadsBack", testAfter},
		{"AfterEndsWhereTheBytesDo", testAfterBytes},
		{"AfterOfWhatIsUnknownIsGone", testAfterUnknown},
		{"LastOfAnEmptyChannel", testLastEmpty},
		{"MessagesComeBackAsTheyWere", testRoundTrip},
		{"ChannelsAreSeparate", testChannels},
		{"ContextsThatAreOver", testHistoryContexts},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t)
			if len(h) == 0 {
				t.Fatal("open returned no history")
			}
			tt.run(archive{t, h})
		})
	}
}

// TestRetention tests that a history drops old messages without leaving a hole. It calls open
// once. open returns an empty history that keeps the newest count messages of a channel, or
// somewhat more for a while.
func TestRetention(t *testing.T, open func(t *testing.T, count int) []chat.History) {
	const count, writers, each = 100, 8, 100
	const written = writers * each
	a := archive{t, open(t, count)}
	first := a.append(0, "c", "the first")
	a.append(0, "other", "stays")
	progress := make(chan struct{}, 1) // a message was written since the last read
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				a.append(w, "c", fmt.Sprint(w, " ", i))
				signal(progress)
			}
		})
	}
	reading.Go(func() { // reads on; restarts when the next message is deleted already
		var at chat.Position
		for n := 0; ; n++ {
			if _, open := <-progress; !open {
				return
			}
			msgs, err := a.at(n).After(context.Background(), "c", at, chat.Limit{Count: 50})
			switch {
			case errors.Is(err, chat.ErrGone):
				a.wantFollow(chat.Position{}, msgs)
				if len(msgs) > 0 && msgs[0].Position.Seq <= at.Seq+1 {
					t.Errorf("the messages after %v begin with %v", at, msgs[0].Position)
				}
			case err != nil:
				t.Error(err)
			default:
				a.wantFollow(at, msgs)
			}
			if len(msgs) > 0 {
				at = msgs[len(msgs)-1].Position
			}
		}
	})
	writing.Wait()
	close(progress)
	reading.Wait()
	last := a.last(0, "c")
	if last.Seq != written+1 {
		t.Errorf("%d messages are at %v", written+1, last)
	}

	eventually(t, func() string {
		if _, err := a.at(0).After(t.Context(), "c", first, chat.Limit{Count: 1}); !errors.Is(err, chat.ErrGone) {
			return fmt.Sprintf("of %d messages where %d are to be kept, the second is still there (%v)", written, count, err)
		}
		return ""
	})
	// Messages may be dropped meanwhile: then the result means nothing.
	eventually(t, func() string {
		kept := a.after(0, "c", chat.Position{}, written)
		found := a.lookAtKept(kept, count, last)
		if again := a.after(0, "c", chat.Position{}, 1); len(kept) > 0 && len(again) > 0 && again[0].Position != kept[0].Position {
			return "messages are still being forgotten"
		}
		for _, f := range found {
			t.Error(f)
		}
		return ""
	})
	if got, err := a.at(0).Last(t.Context(), "c"); err != nil || got != last {
		t.Errorf("Last = %v, %v, want %v", got, err, last)
	}
	if got := a.after(0, "other", chat.Position{}, 10); len(got) != 1 {
		t.Errorf("%d messages of another channel are kept, want its one", len(got))
	}
}

// lookAtKept returns what is wrong with the messages that a history keeps, and with reading
// them. The history must keep the newest count.
func (a archive) lookAtKept(kept []chat.Message, count int, last chat.Position) (found []string) {
	a.Helper()
	a.wantFollow(chat.Position{}, kept)
	if len(kept) < count || kept[len(kept)-1].Position != last {
		return []string{fmt.Sprintf("%d messages are kept, want at least %d and %v to be the last", len(kept), count, last)}
	}
	oldest := kept[0].Position
	for _, tt := range []struct {
		name string
		p    chat.Position
		gone bool
	}{
		{"the beginning", chat.Position{Epoch: oldest.Epoch}, true},
		{"what is gone", chat.Position{Epoch: oldest.Epoch, Seq: oldest.Seq - 2}, true},
		{"the one before the oldest", chat.Position{Epoch: oldest.Epoch, Seq: oldest.Seq - 1}, false},
		{"the oldest", oldest, false},
		{"the newest", last, false},
		{"one in between", kept[len(kept)-count/2].Position, false},
	} {
		msgs, err := a.at(0).After(a.Context(), "c", tt.p, chat.Limit{Count: 1})
		if tt.gone && !errors.Is(err, chat.ErrGone) || !tt.gone && err != nil {
			found = append(found, fmt.Sprintf("after %s, %v: %d messages, %v", tt.name, tt.p, len(msgs), err))
		}
		if !tt.gone {
			a.wantFollow(tt.p, msgs)
		} else if len(msgs) != 1 || msgs[0].Position != oldest {
			found = append(found, fmt.Sprintf("after %s, %v: %d messages, want the oldest that is kept", tt.name, tt.p, len(msgs)))
		}
	}
	return found
}

// signal sends without blocking. c holds one signal.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// archive is a test with a history, which may be on several nodes.
type archive struct {
	*testing.T
	nodes []chat.History
}

func (a archive) at(node int) chat.History { return a.nodes[node%len(a.nodes)] }

func (a archive) append(node int, channel, content string) chat.Position {
	a.Helper()
	m, err := appendOne(a.Context(), a.at(node), chat.Message{
		Channel: channel, Sender: "ana", Content: content, Time: time.Now().UTC().Truncate(time.Millisecond),
	})
	if err != nil {
		a.Errorf("Append to %q: %v", channel, err)
	}
	return m.Position
}

// appendOne stores one message.
func appendOne(ctx context.Context, h chat.History, m chat.Message) (chat.Message, error) {
	stored, err := h.Append(ctx, m)
	if err != nil {
		return chat.Message{}, err
	}
	return stored[0], nil
}

func (a archive) after(node int, channel string, p chat.Position, limit int) []chat.Message {
	a.Helper()
	msgs, err := a.at(node).After(a.Context(), channel, p, chat.Limit{Count: limit})
	if err != nil {
		a.Errorf("After %v of %q: %v", p, channel, err)
	}
	return msgs
}

func (a archive) last(node int, channel string) chat.Position {
	a.Helper()
	p, err := a.at(node).Last(a.Context(), channel)
	if err != nil {
		a.Errorf("Last of %q: %v", channel, err)
	}
	return p
}

// wantFollow checks that messages follow p without a hole. For the zero Position it only checks
// that they follow one another.
func (a archive) wantFollow(p chat.Position, msgs []chat.Message) {
	a.Helper()
	for i, m := range msgs {
		if (i > 0 || p != (chat.Position{})) && (m.Position.Epoch != p.Epoch || m.Position.Seq != p.Seq+1) {
			a.Errorf("%v follows %v", m.Position, p)
			return
		}
		p = m.Position
	}
}

// all reads a channel from its beginning, in pages.
func (a archive) all(node int, channel string, page int) []chat.Message {
	a.Helper()
	var list []chat.Message
	var at chat.Position
	for {
		msgs := a.after(node, channel, at, page)
		if len(msgs) > page {
			a.Errorf("%d messages, asked for %d", len(msgs), page)
		}
		a.wantFollow(at, msgs)
		if len(msgs) == 0 || a.Failed() {
			return list
		}
		list = append(list, msgs...)
		at = msgs[len(msgs)-1].Position
	}
}

// "Each message becomes the next of its channel."
func testPositions(a archive) {
	var epoch string
	for i := range 6 {
		p := a.append(i, "c", fmt.Sprint(i+1))
		if i == 0 {
			epoch = p.Epoch
		}
		if want := (chat.Position{Epoch: epoch, Seq: uint64(i + 1)}); p != want || epoch == "" {
			a.Errorf("position = %v, want %v with an epoch", p, want)
		}
		for node := range a.nodes {
			if last := a.last(node, "c"); last != p {
				a.Errorf("Last = %v after %v", last, p)
			}
		}
		a.append(i, "other", "x")
	}
	if _, p, err := chat.ParseID(chat.FormatID("c", chat.Position{Epoch: epoch, Seq: 1})); err != nil || p.Epoch != epoch {
		a.Errorf("epoch %q cannot be a part of an id: %v", epoch, err)
	}
}

// "The positions of a channel are contiguous within an epoch, also among concurrent
// calls." "After returns messages without a hole", also while others are stored.
func testPositionsRace(a archive) {
	const writers, each, channels = 8, 90, 3
	var progress [channels]chan struct{} // a message was written since the last read
	for c := range progress {
		progress[c] = make(chan struct{}, 1)
	}
	var writing, reading sync.WaitGroup
	var mu sync.Mutex // guards acked
	acked := make(map[string]map[chat.Position]string)
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				channel, content := fmt.Sprint("c", i%channels), fmt.Sprint(w, " ", i)
				p := a.append(w, channel, content)
				mu.Lock()
				if acked[channel] == nil {
					acked[channel] = make(map[chat.Position]string)
				}
				if other, taken := acked[channel][p]; taken {
					a.Errorf("position %v was returned for %q and for %q", p, other, content)
				}
				acked[channel][p] = content
				mu.Unlock()
				signal(progress[i%channels])
			}
		})
	}
	for c := range channels {
		reading.Go(func() {
			channel := fmt.Sprint("c", c)
			var at chat.Position
			for range progress[c] {
				before := a.last(c, channel)
				msgs := a.after(c+1, channel, at, 7)
				a.wantFollow(at, msgs)
				if a.Failed() {
					return
				}
				if len(msgs) == 0 && before.Seq > at.Seq {
					a.Errorf("nothing follows %v when %v is the last", at, before)
					return
				}
				if len(msgs) > 0 {
					if at == (chat.Position{}) && msgs[0].Position.Seq != 1 {
						a.Errorf("the first is %v", msgs[0].Position)
					}
					at = msgs[len(msgs)-1].Position
				}
			}
		})
	}
	writing.Wait()
	for _, c := range progress {
		close(c)
	}
	reading.Wait()
	for channel, positions := range acked {
		if last := a.last(1, channel); last.Seq != uint64(len(positions)) || len(positions) != writers*each/channels {
			a.Errorf("%s: Last = %v of %d positions", channel, last, len(positions))
		}
		msgs := a.all(1, channel, 100)
		if len(msgs) != len(positions) {
			a.Errorf("%s: %d messages of %d", channel, len(msgs), len(positions))
		}
		for _, m := range msgs {
			if positions[m.Position] != m.Content {
				a.Errorf("%s: %v is %q, but was returned for %q", channel, m.Position, m.Content, positions[m.Position])
			}
		}
	}
}

// Every acknowledged message is stored once, in a position of its own, and there is no
// hole, even though the contexts of other calls end. "After an error any number of the
// messages may have been stored", but none twice.
func testPositionsGivenUp(a archive) {
	const writers, each = 8, 60
	var writing sync.WaitGroup
	var mu sync.Mutex // guards acked
	acked := make(map[string]chat.Position)
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				ctx, cancel := a.Context(), func() {}
				if i%2 > 0 {
					ctx, cancel = context.WithTimeout(ctx, rand.N(2*time.Millisecond))
				}
				content := fmt.Sprint(w, " ", i)
				m, err := appendOne(ctx, a.at(w), chat.Message{Channel: "c", Content: content, Time: time.Now().UTC().Truncate(time.Millisecond)})
				cancel()
				if err == nil {
					mu.Lock()
					acked[content] = m.Position
					mu.Unlock()
				} else if i%2 == 0 {
					a.Errorf("Append: %v", err)
				}
			}
		})
	}
	writing.Wait()
	a.append(0, "c", "the end") // earlier calls have ended when it is stored, or end soon
	a.wantFollow(chat.Position{Epoch: a.last(0, "c").Epoch}, a.all(0, "c", 100))
	stored := make(map[string]chat.Position)
	for _, m := range a.all(1, "c", 1000) {
		if other, twice := stored[m.Content]; twice {
			a.Errorf("%q is stored at %v and %v", m.Content, other, m.Position)
		}
		stored[m.Content] = m.Position
	}
	for content, p := range acked {
		if stored[content] != p {
			a.Errorf("%q was returned with %v, is at %v", content, p, stored[content])
		}
	}
}

// "After returns messages of a channel, oldest first, without a hole between them and within
// the limit." "If p is the newest position, it returns none." "If p is the zero Position, it
// returns the oldest messages that are kept."
func testAfter(a archive) {
	start := a.last(0, "c")
	var p []chat.Position
	for i := range 5 {
		p = append(p, a.append(i, "c", fmt.Sprint(i+1)))
		a.append(i, "other", "x")
	}
	for _, tt := range []struct {
		name  string
		after chat.Position
		limit int
		want  []string
	}{
		{"the zero position", chat.Position{}, 10, []string{"1", "2", "3", "4", "5"}},
		{"the zero position, a page", chat.Position{}, 2, []string{"1", "2"}},
		{"before the first", start, 10, []string{"1", "2", "3", "4", "5"}},
		{"before the first, a page", start, 3, []string{"1", "2", "3"}},
		{"one in between", p[1], 10, []string{"3", "4", "5"}},
		{"one in between, a page", p[1], 2, []string{"3", "4"}},
		{"one in between, a page that just fits", p[1], 3, []string{"3", "4", "5"}},
		{"the last but one", p[3], 1, []string{"5"}},
		{"the newest", p[4], 10, []string{}},
		{"nothing asked for", p[1], 0, []string{}},
		{"nothing asked for of all", chat.Position{}, 0, []string{}},
		{"very much asked for", p[2], 1 << 30, []string{"4", "5"}},
	} {
		for node := range a.nodes {
			got := []string{}
			for _, m := range a.after(node, "c", tt.after, tt.limit) {
				got = append(got, m.Content)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				a.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
		}
	}
}

// "No message follows if the contents reach Bytes together." "It returns at least one
// message, whatever its size, when there is one." "A history may stop earlier", but "only an
// empty answer means that nothing follows".
func testAfterBytes(a archive) {
	tests := []struct {
		name  string
		sizes []int
		limit chat.Limit
		most  int // the most messages that a read may return, by position
	}{
		{"no bound", []int{10, 10, 10}, chat.Limit{Count: 10}, 3},
		{"more than all", []int{10, 10, 10}, chat.Limit{Count: 10, Bytes: 1 << 30}, 3},
		{"just all", []int{10, 10, 10}, chat.Limit{Count: 10, Bytes: 30}, 3},
		{"a little more than two", []int{10, 10, 10}, chat.Limit{Count: 10, Bytes: 21}, 3},
		{"just two", []int{10, 10, 10}, chat.Limit{Count: 10, Bytes: 20}, 2},
		{"a little more than one", []int{10, 10, 10}, chat.Limit{Count: 10, Bytes: 11}, 2},
		{"less than one", []int{10, 10, 10}, chat.Limit{Count: 10, Bytes: 1}, 1},
		{"the count before the bytes", []int{10, 10, 10}, chat.Limit{Count: 1, Bytes: 25}, 1},
		{"a large one first", []int{30000, 10, 10}, chat.Limit{Count: 10, Bytes: 100}, 1},
		{"a large one after it", []int{10, 30000, 10}, chat.Limit{Count: 10, Bytes: 100}, 2},
		{"large ones", []int{30000, 30000, 30000, 30000, 30000}, chat.Limit{Count: 1000, Bytes: 64 << 10}, 3},
		{"many small ones", slices.Repeat([]int{10}, 300), chat.Limit{Count: 1000, Bytes: 2000}, 200},
		{"large ones after many small ones", append(slices.Repeat([]int{1}, 100), slices.Repeat([]int{30000}, 10)...), chat.Limit{Count: 1000, Bytes: 40000}, 102},
	}
	for i, tt := range tests {
		channel := fmt.Sprint("c", i)
		for n, size := range tt.sizes {
			a.append(n, channel, strings.Repeat("x", size))
		}
		for node := range a.nodes {
			var at chat.Position
			var got []int
			for {
				msgs, err := a.at(node).After(a.Context(), channel, at, tt.limit)
				if err != nil {
					a.Fatalf("%s: After %v: %v", tt.name, at, err)
				}
				if len(msgs) == 0 {
					break
				}
				a.wantFollow(at, msgs)
				bytes := 0
				for i, m := range msgs {
					if i > 0 && tt.limit.Bytes > 0 && bytes >= tt.limit.Bytes {
						a.Errorf("%s: after %v a message follows %d bytes", tt.name, at, bytes)
					}
					bytes += len(m.Content)
					got = append(got, len(m.Content))
				}
				if at == (chat.Position{}) && len(msgs) > tt.most || len(msgs) > tt.limit.Count {
					a.Errorf("%s: after %v are %d messages, want %d at most", tt.name, at, len(msgs), min(tt.most, tt.limit.Count))
				}
				at = msgs[len(msgs)-1].Position
			}
			if diff := cmp.Diff(tt.sizes, got); diff != "" {
				a.Errorf("%s: sizes of the messages (-want +got):\n%s", tt.name, diff)
			}
		}
	}
}

// "Otherwise p is unknown. Then the error wraps ErrGone and comes with the oldest messages
// that are kept."
func testAfterUnknown(a archive) {
	for _, channel := range []string{"empty", "c"} {
		if channel == "c" {
			a.append(0, channel, "1")
			a.append(0, channel, "2")
		}
		last := a.last(0, channel)
		for name, p := range map[string]chat.Position{
			"one to come":                {Epoch: last.Epoch, Seq: last.Seq + 1},
			"far beyond":                 {Epoch: last.Epoch, Seq: 1<<64 - 1},
			"beyond an int64":            {Epoch: last.Epoch, Seq: 1 << 63},
			"another epoch":              {Epoch: "another", Seq: 1},
			"another epoch's beginning":  {Epoch: "another"},
			"no epoch":                   {Seq: 1},
			"a longer epoch":             {Epoch: last.Epoch + "0", Seq: 1},
			"the epoch in capitals":      {Epoch: strings.ToUpper(last.Epoch) + "A", Seq: 1},
			"something that is no epoch": {Epoch: "'; --", Seq: 1},
		} {
			for _, limit := range []int{0, 10} {
				msgs, err := a.at(1).After(a.Context(), channel, p, chat.Limit{Count: limit})
				if !errors.Is(err, chat.ErrGone) {
					a.Errorf("%s of %q, %v, limit %d: %d messages, %v, want ErrGone", name, channel, p, limit, len(msgs), err)
				}
				want := min(limit, int(last.Seq))
				if len(msgs) != want || want > 0 && msgs[0].Position.Seq != 1 {
					a.Errorf("%s of %q, %v, limit %d: %v, want the oldest %d", name, channel, p, limit, msgs, want)
				}
			}
		}
	}
}

// "If the channel had no message yet, Last returns the position before the first, with its
// epoch."
func testLastEmpty(a archive) {
	for _, channel := range []string{"", "c", "@ana"} {
		start := a.last(0, channel)
		if start.Seq != 0 || start.Epoch == "" {
			a.Errorf("Last of an empty channel = %v, want 0 in an epoch", start)
		}
		for node := range a.nodes {
			if again := a.last(node, channel); again != start {
				a.Errorf("Last = %v, then %v", start, again)
			}
			for _, p := range []chat.Position{start, {}} {
				if msgs := a.after(node, channel, p, 10); len(msgs) != 0 {
					a.Errorf("After %v of an empty channel: %v", p, msgs)
				}
			}
		}
		first := a.append(1, channel, "1")
		if first != (chat.Position{Epoch: start.Epoch, Seq: 1}) {
			a.Errorf("the first message is at %v, after %v", first, start)
		}
		if msgs := a.after(0, channel, start, 10); len(msgs) != 1 {
			a.Errorf("%d messages after the start, want the first", len(msgs))
		}
	}
}
