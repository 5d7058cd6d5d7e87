package chaos

import (
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

func at(seq uint64) chat.Position { return chat.Position{Epoch: "e", Seq: seq} }

func TestCursorFindsWhatIsWrongWithASequence(t *testing.T) {
	other := chat.Position{Epoch: "other", Seq: 4}
	tests := []struct {
		name  string
		start uint64
		comes []chat.Position
		want  []string
	}{
		{"in order", 3, []chat.Position{at(4), at(5), at(6)}, []string{"", "", ""}},
		{"one left out", 3, []chat.Position{at(4), at(6), at(7)}, []string{"", findGap, ""}},
		{"the first left out", 3, []chat.Position{at(5)}, []string{findGap}},
		{"one again", 3, []chat.Position{at(4), at(4), at(5)}, []string{"", findRepeat, ""}},
		{"one before the start", 3, []chat.Position{at(3), at(4)}, []string{findRepeat, ""}},
		{"out of order", 3, []chat.Position{at(5), at(4)}, []string{findGap, findRepeat}},
		{"of another epoch", 3, []chat.Position{other}, []string{findSilent}},
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

func TestLedgerKnowsWhoLacksWhatAnybodyTold(t *testing.T) {
	l := newLedger(newReport(io.Discard))
	for i, content := range []string{"one", "two", "three"} {
		l.publishing("a", content)
		l.delivered("a", at(uint64(i+1)), content)
	}
	l.acked("two", chat.FormatID("a", at(2)))
	l.sighted("a", chat.Position{Epoch: "later"})
	tests := []struct {
		name           string
		channel        string
		at             chat.Position
		acked, anybody bool // lacks what was acknowledged, what anybody got
	}{
		{"before both", "a", at(1), true, true},
		{"at what was acknowledged", "a", at(2), false, true},
		{"at the end", "a", at(3), false, false},
		{"in a later epoch", "a", chat.Position{Epoch: "later"}, false, false},
		{"in a channel without messages", "b", at(0), false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, got := l.lacks(test.channel, test.at, false); got != test.acked {
				t.Errorf("lacks what was acknowledged: %t, want %t", got, test.acked)
			}
			if _, got := l.lacks(test.channel, test.at, true); got != test.anybody {
				t.Errorf("lacks what anybody got: %t, want %t", got, test.anybody)
			}
		})
	}
}
