package chaos

import (
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

func at(seq uint64) chat.Place { return chat.Place{Epoch: "e", Seq: seq} }

func TestCursorFindsWhatIsWrongWithASequence(t *testing.T) {
	other := chat.Place{Epoch: "other", Seq: 4}
	tests := []struct {
		name  string
		start uint64
		comes []chat.Place
		want  []string
	}{
		{"in order", 3, []chat.Place{at(4), at(5), at(6)}, []string{"", "", ""}},
		{"one left out", 3, []chat.Place{at(4), at(6), at(7)}, []string{"", findGap, ""}},
		{"the first left out", 3, []chat.Place{at(5)}, []string{findGap}},
		{"one again", 3, []chat.Place{at(4), at(4), at(5)}, []string{"", findRepeat, ""}},
		{"one before the start", 3, []chat.Place{at(3), at(4)}, []string{findRepeat, ""}},
		{"out of order", 3, []chat.Place{at(5), at(4)}, []string{findGap, findRepeat}},
		{"of another epoch", 3, []chat.Place{other}, []string{findForgotten}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var c cursor
			c.begin(at(test.start))
			var got []string
			for _, p := range test.comes {
				got = append(got, c.next(p))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCursorKnowsWhetherAllHasCome(t *testing.T) {
	var c cursor
	c.begin(at(2))
	tests := []struct {
		last chat.Place
		want bool
	}{
		{chat.Place{}, true}, // nothing was ever published
		{at(2), true},
		{at(1), true},
		{at(3), false},
		{chat.Place{Epoch: "other", Seq: 1}, false},
	}
	for _, test := range tests {
		if got := c.reached(test.last); got != test.want {
			t.Errorf("reached(%v) = %t at %v", test.last, got, c.at)
		}
	}
}

func TestLedgerFindsWhatWasNotPublishedSo(t *testing.T) {
	tests := []struct {
		name string
		do   func(*ledger)
		want map[string]int
	}{
		{"delivered, then acknowledged", func(l *ledger) {
			l.publishing("a", "hello")
			l.delivered("a", at(1), "hello")
			l.acked("hello", chat.FormatID("a", at(1)))
			l.delivered("a", at(1), "hello")
		}, map[string]int{}},
		{"never acknowledged", func(l *ledger) {
			l.publishing("a", "hello")
			l.delivered("a", at(1), "hello")
		}, map[string]int{}},
		{"nobody's", func(l *ledger) {
			l.delivered("a", at(1), "hello")
		}, map[string]int{findForged: 1}},
		{"in another channel", func(l *ledger) {
			l.publishing("a", "hello")
			l.delivered("b", at(1), "hello")
		}, map[string]int{findForged: 1}},
		{"two contents under one id", func(l *ledger) {
			l.publishing("a", "hello")
			l.publishing("a", "there")
			l.delivered("a", at(1), "hello")
			l.delivered("a", at(1), "there")
		}, map[string]int{findForged: 1}},
		{"acknowledged with another's id", func(l *ledger) {
			l.publishing("a", "hello")
			l.publishing("a", "there")
			l.delivered("a", at(1), "hello")
			l.acked("there", chat.FormatID("a", at(1)))
		}, map[string]int{findForged: 1}},
		{"stored twice", func(l *ledger) {
			l.publishing("a", "hello")
			l.acked("hello", chat.FormatID("a", at(1)))
			l.delivered("a", at(2), "hello")
		}, map[string]int{findTwice: 1}},
		{"acknowledged with no id", func(l *ledger) {
			l.publishing("a", "hello")
			l.acked("hello", "?")
		}, map[string]int{findProtocol: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newReport(io.Discard)
			test.do(newLedger(r))
			if diff := cmp.Diff(test.want, r.verdict().Findings); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLedgerKnowsTheLastPlaceThatAnybodyTold(t *testing.T) {
	l := newLedger(newReport(io.Discard))
	for i, content := range []string{"one", "two", "three"} {
		l.publishing("a", content)
		l.delivered("a", at(uint64(i+1)), content)
	}
	l.publishing("a", "four")
	l.acked("two", chat.FormatID("a", at(2)))
	if got, want := l.last("a", false), at(2); got != want {
		t.Errorf("last acknowledged = %v, want %v", got, want)
	}
	if got, want := l.last("a", true), at(3); got != want {
		t.Errorf("last = %v, want %v", got, want)
	}
	l.acked("four", chat.FormatID("a", at(4)))
	for _, any := range []bool{false, true} {
		if got, want := l.last("a", any), at(4); got != want {
			t.Errorf("last = %v, want %v", got, want)
		}
		if got := l.last("b", any); got != (chat.Place{}) {
			t.Errorf("last of a channel without messages = %v", got)
		}
	}
}
