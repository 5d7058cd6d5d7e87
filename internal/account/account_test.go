package account_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/account"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

var (
	limits = account.Limits{Sockets: 2, Connect: account.Rate{PerSecond: 1, Burst: 3}, Idle: 100}
	rate   = account.Rate{PerSecond: 2, Burst: 4}
)

// connect counts a handshake of a user whose socket ends at once.
func connect(t *account.Table, name string) (time.Duration, bool) {
	a := t.Hold(name)
	defer a.Release()
	return a.Connect(time.Now())
}

func command(t *account.Table, name string) bool {
	a := t.Hold(name)
	defer a.Release()
	_, _, ok := a.Command(time.Now(), rate)
	return ok
}

func TestBucketsOutliveThoseWhoHoldThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := account.New(limits)
		var got []bool
		for range 5 {
			got = append(got, command(table, "ana"))
		}
		got = append(got, command(table, "bob"))
		if diff := cmp.Diff([]bool{true, true, true, true, false, true}, got); diff != "" {
			t.Errorf("commands (-want +got):\n%s", diff)
		}
		<-time.After(time.Second)
		got = nil
		for range 3 {
			got = append(got, command(table, "ana"))
		}
		if diff := cmp.Diff([]bool{true, true, false}, got); diff != "" {
			t.Errorf("a second later (-want +got):\n%s", diff)
		}
	})
}

func TestHandshakesAreCountedByUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := account.New(limits)
		type answer struct {
			Wait time.Duration
			OK   bool
		}
		var got []answer
		for _, name := range []string{"ana", "ana", "ana", "ana", "bob"} {
			wait, ok := connect(table, name)
			got = append(got, answer{wait, ok})
		}
		want := []answer{{0, true}, {0, true}, {0, true}, {time.Second, false}, {0, true}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		a := table.Hold("ana")
		defer a.Release()
		if wait := a.ConnectWait(time.Now()); wait != time.Second {
			t.Errorf("to look is answered %v, want 1s", wait)
		}
		a.Unconnect(time.Now())
		if wait := a.ConnectWait(time.Now()); wait != 0 {
			t.Errorf("after one was given back: %v, want none", wait)
		}
	})
}

func TestSocketsAreBoundedByUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := account.New(limits)
		a := table.Hold("ana")
		defer a.Release()
		open := func() bool { _, ok := a.Open(time.Now()); return ok }
		if diff := cmp.Diff([]bool{true, true, false}, []bool{open(), open(), open()}); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		a.Closed()
		a.Crowded(time.Now())
		if wait, ok := a.Open(time.Now()); ok || wait != 2*time.Second {
			t.Errorf("with too many elsewhere: %v, %v; want refused for 2s", wait, ok)
		}
		<-time.After(2 * time.Second)
		if !open() {
			t.Error("refused for longer than was said")
		}
		if n := a.Sockets(); n != 2 {
			t.Errorf("%d sockets, want 2", n)
		}
	})
}

func TestACommandIsToldWhetherTheBucketWasFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := account.New(limits)
		one, other := table.Hold("ana"), table.Hold("ana")
		defer one.Release()
		defer other.Release()
		type answer struct{ Full, OK bool }
		var got []answer
		try := func(a *account.Account) {
			_, full, ok := a.Command(time.Now(), rate)
			got = append(got, answer{full, ok})
		}
		for range 4 {
			try(one)
		}
		try(other)
		<-time.After(time.Second) // two of four
		try(other)
		<-time.After(3 * time.Second)
		try(one)
		want := []answer{{true, true}, {false, true}, {false, true}, {false, true}, {false, false}, {false, true}, {true, true}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("commands (-want +got):\n%s", diff)
		}
	})
}

func TestNothingIsKeptOfAUserWhoseBucketsAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := account.New(limits)
		for i := range 50 {
			connect(table, fmt.Sprint("user", i))
		}
		if n := table.Len(); n != 50 {
			t.Errorf("%d accounts, want 50", n)
		}
		<-time.After(2 * time.Second)
		for range 7 { // each scan examines a few accounts
			connect(table, "ana")
		}
		if n := table.Len(); n != 1 {
			t.Errorf("%d accounts, want ana's", n)
		}
	})
}

// A flood of names that did a little evicts none that did a lot.
func TestAFloodOfNamesKeepsThoseWhoDidTheMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := account.New(limits)
		for range 4 {
			connect(table, "ana")
		}
		for i := range 10 * limits.Idle {
			connect(table, fmt.Sprint("flood", i))
		}
		if n := table.Len(); n > limits.Idle {
			t.Errorf("%d accounts, want %d at the most", n, limits.Idle)
		}
		if _, ok := connect(table, "ana"); ok {
			t.Error("ana is forgotten")
		}
	})
}

func TestManyHoldAndReleaseAtOnce(t *testing.T) {
	table := account.New(account.Limits{Sockets: 3, Connect: account.Rate{PerSecond: 1e6, Burst: 1}, Idle: 5})
	var work sync.WaitGroup
	for i := range 16 {
		work.Go(func() {
			for j := range 500 {
				a := table.Hold(fmt.Sprint("user", (i+j)%10))
				a.Connect(time.Now())
				if _, ok := a.Open(time.Now()); ok {
					if n := a.Sockets(); n > 3 {
						t.Errorf("%d sockets", n)
					}
					a.Closed()
				}
				a.Release()
			}
		})
	}
	work.Wait()
	if n := table.Len(); n > 5 {
		t.Errorf("%d accounts are left, want 5 at the most", n)
	}
}

func TestTokensAreRefusedForAsLongAsWasSaid(t *testing.T) {
	now := time.Now()
	tokens := account.NewTokens()
	tokens.Refuse("ana's", now, 2*time.Second)
	tokens.Refuse("bob's", now, time.Hour)
	tests := []struct {
		token string
		after time.Duration
		want  time.Duration
	}{
		{"ana's", 0, 2 * time.Second},
		{"ana's", time.Second, time.Second},
		{"ana's", 2 * time.Second, 0},
		{"ana's other", 0, 0},
		{"bob's", time.Second, 9 * time.Second},
		{"bob's", -time.Hour, 0}, // the clock was set back
		{"", 0, 0},
	}
	for _, tt := range tests {
		if got := tokens.Wait(tt.token, now.Add(tt.after)); got != tt.want {
			t.Errorf("%s after %v: %v, want %v", tt.token, tt.after, got, tt.want)
		}
	}
}
