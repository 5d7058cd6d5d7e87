package chattest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// several makes messages with the contents "NAME 0", "NAME 1" and so on. They take turns
// in the channels.
func several(name string, n int, channels ...string) []chat.Message {
	msgs := make([]chat.Message, n)
	for i := range msgs {
		msgs[i] = chat.Message{
			Channel: channels[i%len(channels)], Sender: "ana", Content: fmt.Sprint(name, " ", i),
			Time: time.Now().UTC().Truncate(time.Millisecond),
		}
	}
	return msgs
}

// "Without messages Append does nothing and returns no error."
func testAppendNone(a archive) {
	over, cancel := context.WithCancel(a.Context())
	cancel()
	for _, ctx := range []context.Context{a.Context(), over} {
		if stored, err := a.at(0).Append(ctx); len(stored) > 0 || err != nil {
			a.Errorf("Append of nothing = %v, %v, want nothing and no error", stored, err)
		}
	}
}

// "The result has the same messages in the same order, each with its Position." "Append
// neither changes msgs nor keeps it." "A call's messages of one channel get their
// positions in the order in which they are given."
func testAppendSeveral(a archive) {
	var channels []string
	for i := range 300 {
		channels = append(channels, fmt.Sprint("many", i))
	}
	large := several("large", 40, "large", "")
	for i := range large {
		large[i].Content += strings.Repeat("x", 32<<10)
	}
	stored := make(map[string][]chat.Message) // by channel
	for i, msgs := range [][]chat.Message{
		several("one", 1, "c"),
		several("two", 2, "c"),
		several("one channel", 50, "c"),
		several("three channels", 50, "", "c", "@ana"),
		several("a channel each", 300, channels...),
		several("very many", 1500, "c", "d"),
		several("very many in many channels", 1500, channels...),
		large,
	} {
		given := slices.Clone(msgs)
		got, err := a.at(i).Append(a.Context(), msgs...)
		if err != nil {
			a.Errorf("%s: Append: %v", given[0].Content, err)
			continue
		}
		if diff := cmp.Diff(given, msgs); diff != "" {
			a.Errorf("%s: Append changed what it was given (-before +after):\n%.2000s", given[0].Content, diff)
		}
		want := slices.Clone(given)
		for i := range min(len(want), len(got)) {
			want[i].Position = got[i].Position
		}
		if diff := cmp.Diff(want, got); diff != "" {
			a.Errorf("%s: Append returned other messages (-want +got):\n%.2000s", given[0].Content, diff)
		}
		for _, m := range got {
			stored[m.Channel] = append(stored[m.Channel], m)
		}
		clear(msgs) // a history that kept msgs would store empty messages now
	}
	for channel, want := range stored {
		if a.Failed() {
			return // the rest would only repeat it
		}
		a.wantFollow(chat.Position{Epoch: want[0].Position.Epoch}, want)
		if diff := cmp.Diff(want, a.all(1, channel, 100)); diff != "" {
			a.Errorf("%q (-stored +read):\n%.2000s", channel, diff)
		}
	}
}

// "The positions of a channel are contiguous within an epoch, also among concurrent
// calls. A call's messages of one channel get theirs in the order in which they are
// given."
func testAppendSeveralRace(a archive) {
	const writers, each, size = 8, 10, 30
	channels := []string{"c0", "c1", "c2"}
	var writing sync.WaitGroup
	var mu sync.Mutex // guards acked
	acked := make(map[string][]chat.Message)
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				got, err := a.at(w).Append(a.Context(), several(fmt.Sprint(w, " ", i), size, channels...)...)
				if err != nil || len(got) != size {
					a.Errorf("Append of %d: %d, %v", size, len(got), err)
					return
				}
				mu.Lock()
				last := make(map[string]chat.Position)
				for _, m := range got {
					if before := last[m.Channel]; m.Position.Seq <= before.Seq {
						a.Errorf("%q is at %v, the message before it in its call at %v", m.Content, m.Position, before)
					}
					last[m.Channel] = m.Position
					acked[m.Channel] = append(acked[m.Channel], m)
				}
				mu.Unlock()
			}
		})
	}
	writing.Wait()
	for _, channel := range channels {
		want := acked[channel]
		slices.SortFunc(want, func(x, y chat.Message) int { return int(x.Position.Seq) - int(y.Position.Seq) })
		if a.Failed() || len(want) == 0 {
			return // the rest would only repeat it
		}
		a.wantFollow(chat.Position{Epoch: want[0].Position.Epoch}, want)
		if diff := cmp.Diff(want, a.all(1, channel, 100)); diff != "" {
			a.Errorf("%q (-acknowledged +read):\n%.2000s", channel, diff)
		}
	}
}

// "After an error any number of the messages may have been stored", but none twice and
// none out of order. The positions stay contiguous.
func testAppendSeveralGivenUp(a archive) {
	const writers, each, size = 8, 20, 12
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
				got, err := a.at(w).Append(ctx, several(fmt.Sprint(w, " ", i), size, "c")...)
				cancel()
				switch {
				case err == nil:
					mu.Lock()
					for _, m := range got {
						acked[m.Content] = m.Position
					}
					mu.Unlock()
				case i%2 == 0:
					a.Errorf("Append: %v", err)
				case len(got) > 0:
					a.Errorf("Append returned %d messages and %v", len(got), err)
				}
			}
		})
	}
	writing.Wait()
	a.append(0, "c", "the end") // earlier calls have ended by now
	all := a.all(1, "c", 1000)
	a.wantFollow(chat.Position{Epoch: a.last(0, "c").Epoch}, all)
	stored := make(map[string]chat.Position)
	next := make(map[string]int) // of a call's messages, by its name
	for _, m := range all {
		if other, twice := stored[m.Content]; twice {
			a.Errorf("%q is stored at %v and %v", m.Content, other, m.Position)
		}
		stored[m.Content] = m.Position
		var w, i, n int
		if found, _ := fmt.Sscan(m.Content, &w, &i, &n); found == 3 {
			name := fmt.Sprint(w, " ", i)
			if n < next[name] {
				a.Errorf("%q is stored after a later message of its call", m.Content)
			}
			next[name] = n + 1
		}
	}
	for content, p := range acked {
		if stored[content] != p {
			a.Errorf("%q was returned with %v, is at %v", content, p, stored[content])
		}
	}
}
