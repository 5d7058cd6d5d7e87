package chattest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// A message is read as it was stored: with its channel, sender, content and time.
func testRoundTrip(a archive) {
	long := strings.Repeat("0123456789abcdef", 32<<10/16)
	now := time.Now().UTC().Truncate(time.Millisecond)
	times := []time.Time{
		now, now.Truncate(time.Second), now.Add(-time.Millisecond),
		now.Truncate(time.Second).Add(999 * time.Millisecond),
	}
	senders := []string{"", "ana", "ana@example.com", "auth0|123", "O'Brien", `"q" \ %s $1 ?`, "日本", strings.Repeat("n", 128)}
	contents := []string{
		"x", " ", "\n", " around \t", "two\nlines\r\n", `"quoted" 'twice' \n \\ \x00`, "%s %d $1 ? :a @b", "null", "{}",
		"é and e\u0301", "👩‍👩‍👧‍👦 🏳️‍🌈", "\u2028\ufeff\u200b\uffff", "\x01\x1b\x7f", "-- ; DROP TABLE messages", long,
		strings.Repeat("🙂", 32<<10/4), strings.Repeat("\"", 32<<10),
	}
	channels := []string{"", "c", "@ana", "@auth0|1 2", "@{x}y", "@O'Brien", "@日本"}
	var want []chat.Message
	for i := range max(len(senders), len(contents)) {
		for _, channel := range []string{channels[i%len(channels)], "all"} {
			m := chat.Message{Channel: channel, Sender: senders[i%len(senders)], Content: contents[i%len(contents)], Time: times[i%len(times)]}
			stored, err := appendOne(a.Context(), a.at(i), m)
			if err != nil {
				a.Errorf("Append of %.40q to %q: %v", m.Content, channel, err)
				continue
			}
			m.Position = stored.Position
			if diff := cmp.Diff(m, stored); diff != "" {
				a.Errorf("as Append returns it (-want +got):\n%s", diff)
			}
			want = append(want, m)
		}
	}
	byChannel := make(map[string][]chat.Message)
	for _, m := range want {
		byChannel[m.Channel] = append(byChannel[m.Channel], m)
	}
	for channel, want := range byChannel {
		got := a.all(1, channel, 5)
		if len(got) != len(want) {
			a.Errorf("%q has %d messages, want %d", channel, len(got), len(want))
			continue
		}
		for i := range want {
			if diff := cmp.Diff(want[i], got[i]); diff != "" {
				a.Errorf("%s (-stored +got):\n%.2000s", want[i].ID(), diff)
			}
		}
	}
}

// Channels differ if one byte of their names differs. Each has positions of its own.
func testChannels(a archive) {
	channels := []string{
		"", "a", "A", "a.", "a:b", "a_b", "a-b", "@a", "@A", "@é", "@e\u0301", "@a b", "@{a}", "@a%b", "@a_b", "@a*",
		"@a'b", `@a\b`, strings.Repeat("c", 127), strings.Repeat("c", 128), "@" + strings.Repeat("c", 128), "@" + strings.Repeat("é", 64),
	}
	for round := range 2 {
		for i, channel := range channels {
			p := a.append(i, channel, fmt.Sprintf("%d in %s", round, channel))
			if p.Seq != uint64(round+1) {
				a.Errorf("message %d of %q is at %v", round+1, channel, p)
			}
		}
	}
	for _, channel := range channels {
		var got []string
		for _, m := range a.all(1, channel, 10) {
			if m.Channel != channel {
				a.Errorf("%q has a message of %q", channel, m.Channel)
			}
			got = append(got, m.Content)
		}
		want := []string{"0 in " + channel, "1 in " + channel}
		if diff := cmp.Diff(want, got); diff != "" {
			a.Errorf("%q (-want +got):\n%s", channel, diff)
		}
	}
}

// The methods "respect ctx": if it has ended they return.
func testHistoryContexts(a archive) {
	over, cancel := context.WithCancel(a.Context())
	cancel()
	first := a.append(0, "c", "1")
	for name, call := range map[string]func(){
		"Append": func() { _, _ = a.at(0).Append(over, chat.Message{Channel: "c", Content: "perhaps", Time: time.Now()}) },
		"After":  func() { _, _ = a.at(0).After(over, "c", first, chat.Limit{Count: 10}) },
		"Last":   func() { _, _ = a.at(0).Last(over, "c") },
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			call()
		}()
		select {
		case <-done:
		case <-time.After(patience):
			a.Fatalf("%s does not return when its context has ended", name)
		}
	}
	a.append(1, "c", "for sure")
	got := a.all(0, "c", 10)
	a.wantFollow(chat.Position{Epoch: first.Epoch}, got)
	if got[len(got)-1].Content != "for sure" {
		a.Errorf("%v does not end with the message that was stored last", got)
	}
}
