package chaos

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// strikeOf runs part of a fault's time, with a fake clock, and ends the fault.
func strikeOf(l *ledger) {
	<-time.After(time.Minute)
	end := l.losses.open()
	<-time.After(time.Second)
	end()
	<-time.After(time.Second)
}

func in(epoch string, seq uint64) chat.Position { return chat.Position{Epoch: epoch, Seq: seq} }

func ack(l *ledger, content string, p chat.Position) {
	l.publishing("a", content)
	l.acked(content, chat.FormatID("a", p))
}

func TestLedgerAccountsForLosses(t *testing.T) {
	tests := []struct {
		name   string
		do     func(*ledger)
		want   map[string]int
		losses Losses
	}{
		{"nothing is lost", func(l *ledger) {
			ack(l, "hello", in("e", 1))
			l.listed("a", in("e", 1), "hello")
		}, map[string]int{}, Losses{}},
		{"lost by a fault, and reported", func(l *ledger) {
			ack(l, "hello", in("e", 1))
			ack(l, "there", in("e", 2))
			strikeOf(l)
			l.rebased("a", in("e", 1), in("f", 0))
			ack(l, "again", in("f", 1))
			l.listed("a", in("f", 1), "again")
		}, map[string]int{}, Losses{Messages: 2, Reported: 1, Deliveries: 1}},
		{"lost without a fault", func(l *ledger) {
			ack(l, "hello", in("e", 1))
		}, map[string]int{findLost: 1}, Losses{Messages: 1}},
		{"lost although it was published after the last fault", func(l *ledger) {
			strikeOf(l)
			ack(l, "hello", in("f", 1))
		}, map[string]int{findLost: 1}, Losses{Messages: 1}},
		{"kept, under an id of the epoch that began", func(l *ledger) {
			ack(l, "hello", in("e", 1))
			strikeOf(l)
			l.rebased("a", in("e", 1), in("f", 1))
			l.listed("a", in("f", 1), "hello")
		}, map[string]int{}, Losses{Reported: 1}},
		{"published once, stored twice in an epoch", func(l *ledger) {
			ack(l, "hello", in("e", 1))
			strikeOf(l)
			l.delivered("a", in("e", 2), "hello")
			l.listed("a", in("e", 2), "hello")
		}, map[string]int{findTwice: 1}, Losses{}},
		{"published once, stored in two epochs without a fault", func(l *ledger) {
			ack(l, "hello", in("e", 1))
			l.delivered("a", in("f", 1), "hello")
			l.listed("a", in("f", 1), "hello")
		}, map[string]int{findTwice: 1}, Losses{}},
		{"an id given again after a fault", func(l *ledger) {
			ack(l, "hello", in("e", 1))
			strikeOf(l)
			ack(l, "there", in("e", 1))
			l.listed("a", in("e", 1), "there")
		}, map[string]int{findForged: 2, findStale: 1}, Losses{Messages: 1}}, // acknowledged and listed
		{"an unacknowledged message's id given again", func(l *ledger) {
			l.publishing("a", "hello")
			l.delivered("a", in("e", 1), "hello")
			l.publishing("a", "there")
			strikeOf(l)
			l.delivered("a", in("e", 1), "there")
		}, map[string]int{findForged: 1}, Losses{}},
		{"acknowledged in an epoch that is over", func(l *ledger) {
			l.sighted("a", in("e", 0))
			strikeOf(l)
			ack(l, "hello", in("e", 1))
			l.listed("a", in("e", 1), "hello")
		}, map[string]int{findStale: 1}, Losses{}},
		{"acknowledged late, published before the fault", func(l *ledger) {
			l.sighted("a", in("e", 0))
			l.publishing("a", "hello")
			strikeOf(l)
			l.acked("hello", chat.FormatID("a", in("e", 1)))
			l.listed("a", in("e", 1), "hello")
		}, map[string]int{}, Losses{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReport(io.Discard)
				l := newLedger(r)
				test.do(l)
				losses := l.lost()
				if diff := cmp.Diff(test.losses, losses); diff != "" {
					t.Errorf("losses (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(test.want, r.verdict().Findings); diff != "" {
					t.Errorf("findings (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestLedgerJudgesReportsOfLosses(t *testing.T) {
	tests := []struct {
		name     string
		before   func(*ledger)
		from, to chat.Position
		want     string
	}{
		{"after a fault", strikeOf, in("e", 1), in("f", 0), ""},
		{"while a fault goes on", func(l *ledger) { l.losses.open() }, in("e", 1), in("f", 0), ""},
		{"without a fault", func(*ledger) {}, in("e", 1), in("f", 0), findForgotten},
		{"without a fault, within an epoch", func(*ledger) {}, in("e", 1), in("e", 3), findForgotten},
		{"without a fault since the epoch began", func(l *ledger) {
			strikeOf(l)
			<-time.After(time.Minute)
			l.sighted("a", in("f", 0))
			<-time.After(time.Minute)
		}, in("f", 1), in("g", 0), findForgotten},
		{"back to an epoch that is over", func(l *ledger) {
			strikeOf(l)
			l.sighted("a", in("f", 0))
			strikeOf(l)
		}, in("f", 1), in("e", 1), findRepeat},
		{"where anything may be forgotten", func(l *ledger) { l.forgetful = true }, in("e", 1), in("f", 0), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger(newReport(io.Discard))
				l.sighted("a", in("e", 0))
				test.before(l)
				if got, why := l.rebased("a", test.from, test.to); got != test.want {
					t.Errorf("finding %q (%s), want %q", got, why, test.want)
				}
			})
		})
	}
}

// A client that is never told of a loss waits for ever; the end of the run finds it.
func TestFleetFindsASilentLoss(t *testing.T) {
	r := newReport(io.Discard)
	l := newLedger(r)
	following := func(p chat.Position) *client {
		c := &client{ledger: l, report: r, user: chat.User{Name: "ana"}, cursors: map[string]*cursor{"a": {}}}
		c.cursors["a"].begin(p)
		return c
	}
	f := &fleet{
		cluster: &cluster{ledger: l, report: r},
		clients: []*client{following(in("e", 1)), following(in("f", 1))},
	}
	l.sighted("a", in("e", 0))
	l.sighted("a", in("f", 0))
	ack(l, "hello", in("e", 1))
	if wrong, silent := f.behind(false); wrong != "" || silent != 0 {
		t.Errorf("behind %q, %d without a report, before anything was lost", wrong, silent)
	}
	ack(l, "there", in("f", 1))
	wrong, silent := f.behind(false)
	if wrong == "" || silent != 1 {
		t.Errorf("behind %q, %d without a report, want 1", wrong, silent)
	}
	if got := f.account().Unreported; got != 1 {
		t.Errorf("%d losses not reported, want 1", got)
	}
}
