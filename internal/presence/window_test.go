package presence_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/presence"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func joined(name string, size int) presence.Change {
	return presence.Change{Name: name, Role: "user", Joined: true, Size: size}
}

func left(name string, size int) presence.Change {
	return presence.Change{Name: name, Role: "user", Size: size}
}

func in(channel string, c presence.Change) presence.Change {
	c.Channel = channel
	return c
}

func TestAWindowTellsWhatChangedInTheEnd(t *testing.T) {
	tests := []struct {
		name      string
		add, want []presence.Change
	}{
		{"nothing", nil, nil},
		{"one came", []presence.Change{joined("ana", 1)}, []presence.Change{joined("ana", 1)}},
		{"one went", []presence.Change{left("ana", 0)}, []presence.Change{left("ana", 0)}},
		{"came and went", []presence.Change{joined("ana", 1), left("ana", 0)}, nil},
		{"went and came", []presence.Change{left("ana", 0), joined("ana", 1)}, nil},
		{"came in the end",
			[]presence.Change{joined("ana", 1), left("ana", 0), joined("bob", 1), joined("ana", 2)},
			[]presence.Change{joined("ana", 2), joined("bob", 2)}},
		{"went in the end",
			[]presence.Change{left("ana", 1), joined("ana", 2), left("bob", 1), left("ana", 0)},
			[]presence.Change{left("ana", 0), left("bob", 0)}},
		{"channels are apart",
			[]presence.Change{joined("ana", 1), in("c", joined("ana", 1)), in("c", left("ana", 0))},
			[]presence.Change{joined("ana", 1)}},
		{"names are apart from channels",
			[]presence.Change{in("a", joined("b", 1)), in("ab", left("", 0))},
			[]presence.Change{in("a", joined("b", 1)), in("ab", left("", 0))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var got []presence.Change
				w := presence.New(time.Second, func(c []presence.Change) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, c...)
				})
				for _, c := range tt.add {
					w.Add(c)
				}
				<-time.After(time.Second - 1)
				synctest.Wait()
				mu.Lock()
				if len(got) > 0 {
					t.Errorf("told before the window's end: %v", got)
				}
				mu.Unlock()
				<-time.After(1)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("told (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestEachWindowIsToldByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var got []string
		w := presence.New(time.Second, func(c []presence.Change) {
			got = append(got, fmt.Sprint(time.Since(began), " ", c))
		})
		w.Add(joined("ana", 1))
		<-time.After(1500 * time.Millisecond)
		w.Add(left("ana", 0)) // the next window: not undone
		<-time.After(10 * time.Second)
		synctest.Wait()
		want := []string{
			fmt.Sprint("1s ", []presence.Change{joined("ana", 1)}),
			fmt.Sprint("2.5s ", []presence.Change{left("ana", 0)}),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestTellingHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		telling, told := make(chan struct{}), make(chan struct{})
		w := presence.New(time.Second, func(c []presence.Change) {
			got = append(got, fmt.Sprint(c))
			telling <- struct{}{}
			<-told
		})
		w.Add(joined("ana", 1))
		<-telling
		w.Add(left("ana", 0)) // returns at once
		<-time.After(time.Minute)
		told <- struct{}{} // only now the next window may end
		<-telling
		close(told)
		synctest.Wait()
		want := []string{fmt.Sprint([]presence.Change{joined("ana", 1)}), fmt.Sprint([]presence.Change{left("ana", 0)})}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		w.Close()
	})
}

func TestAClosedWindowTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := presence.New(time.Second, func(c []presence.Change) { t.Errorf("told %v", c) })
		w.Close()
		w.Add(joined("ana", 1))
		<-time.After(time.Minute)

		w = presence.New(time.Second, func(c []presence.Change) { t.Errorf("told %v", c) })
		w.Add(joined("ana", 1))
		w.Close()
		w.Close()
		w.Add(joined("bob", 2))
		<-time.After(time.Minute)
	})
}

func TestAWindowClosedWhileTellingTellsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w *presence.Window
		times := 0
		w = presence.New(time.Second, func([]presence.Change) {
			times++
			w.Add(joined("bob", 2))
			w.Close()
		})
		w.Add(joined("ana", 1))
		<-time.After(time.Minute)
		synctest.Wait()
		if times != 1 {
			t.Errorf("told %d times, want 1", times)
		}
	})
}

// A rush of changes is told less often: every telling writes to everyone there.
func TestAWindowIsDrawnOutWhileVeryMuchChanges(t *testing.T) {
	tests := []struct {
		name  string
		every time.Duration // between two changes
		want  time.Duration // from the first until they are told
	}{
		{"few", time.Second / 10, time.Second},
		{"a hundred in the first length", time.Second / 100, 4 * time.Second},
		{"many at once and no more", 0, 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := make(chan time.Duration, 10)
				begin := time.Now()
				w := presence.New(time.Second, func([]presence.Change) { told <- time.Since(begin) })
				for i := range 150 {
					w.Add(joined(fmt.Sprint(i), i))
					if tt.every > 0 {
						<-time.After(tt.every)
					}
				}
				if tt.every == time.Second/100 { // and so on
					for i := range 400 {
						w.Add(joined(fmt.Sprint("more", i), i))
						<-time.After(tt.every)
					}
				}
				if got := <-told; got != tt.want {
					t.Errorf("told after %v, want %v", got, tt.want)
				}
				w.Close()
			})
		})
	}
}

// Thousands of changes are announced in portions that receivers can read in time.
func TestThousandsAreToldInPortions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type portion struct {
			After   time.Duration
			Changes map[string]int // by channel
		}
		begin := time.Now()
		var got []portion
		told := make(map[string]bool)
		w := presence.New(time.Second, func(changes []presence.Change) {
			p := portion{time.Since(begin), make(map[string]int)}
			for _, c := range changes {
				p.Changes[c.Channel]++
				if told[c.Channel+" "+c.Name] {
					t.Errorf("%s was told twice", c.Name)
				}
				told[c.Channel+" "+c.Name] = true
				if want := map[string]int{"": 500, "c": 3}[c.Channel]; c.Size != want {
					t.Errorf("size %d in channel %q, want the one by now, %d", c.Size, c.Channel, want)
				}
			}
			got = append(got, p)
		})
		for i := range 500 {
			w.Add(joined(fmt.Sprint(i), i+1))
		}
		for i := range 3 {
			w.Add(in("c", joined(fmt.Sprint(i), i+1)))
		}
		<-time.After(time.Minute)
		synctest.Wait()
		want := []portion{ // drawn out to the most: there were 503 in the first length
			{4 * time.Second, map[string]int{"": 200, "c": 3}},
			{4*time.Second + time.Second/10, map[string]int{"": 200}},
			{4*time.Second + time.Second/5, map[string]int{"": 100}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestWhatIsUndoneBeforeItsPortionIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []presence.Change
		w := presence.New(time.Second, func(changes []presence.Change) { got = append(got, changes...) })
		for i := range 201 {
			w.Add(joined(fmt.Sprint(i), 201))
		}
		<-time.After(3*time.Second + time.Second/20)
		synctest.Wait()
		if len(got) != 200 {
			t.Fatalf("%d were told first", len(got))
		}
		w.Add(left("200", 200)) // not told of yet
		w.Add(left("0", 199))   // told of
		<-time.After(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]presence.Change{left("0", 199)}, got[200:]); diff != "" {
			t.Errorf("then (-want +got):\n%s", diff)
		}
	})
}

func TestWhatChangesWhileThousandsAreToldWaitsForTheNextWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		when := make(map[string]time.Duration)
		w := presence.New(time.Second, func(changes []presence.Change) {
			for _, c := range changes {
				when[c.Channel+" "+c.Name] = time.Since(begin)
			}
		})
		for i := range 401 {
			w.Add(joined(fmt.Sprint(i), 401))
		}
		<-time.After(4*time.Second + time.Second/20) // between the first portion and the second
		w.Add(in("c", joined("ana", 1)))
		w.Add(left("0", 400))
		<-time.After(time.Minute)
		synctest.Wait()
		got := []time.Duration{when[" 400"], when["c ana"], when[" 0"]}
		// The last portion is told a fifth of a length behind the first.
		want := []time.Duration{4200 * time.Millisecond, 5200 * time.Millisecond, 5200 * time.Millisecond}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("told after (-want +got):\n%s", diff)
		}
	})
}

func TestTheSizeIsTheOneWhenItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes := make(map[string]int)
		w := presence.New(time.Second, func(changes []presence.Change) {
			for _, c := range changes {
				sizes[c.Name] = c.Size
			}
		})
		for i := range 401 {
			w.Add(left(fmt.Sprint(i), 400-i))
		}
		<-time.After(4*time.Second + time.Second/20) // between the first portion and the second
		w.Add(joined("ana", 1))
		w.Add(joined("400", 2)) // back before it was announced
		<-time.After(time.Minute)
		synctest.Wait()
		if sizes["ana"] != 2 {
			t.Errorf("ana was announced with size %d, want 2", sizes["ana"])
		}
	})
}

// A window of joins alone becomes one of joins and leaves, and the other way round.
func TestAChangeOfTheOtherKindFindsTheNameThatItUndoes(t *testing.T) {
	const names = 50
	for _, first := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var got []presence.Change
			w := presence.New(time.Second, func(changes []presence.Change) { got = append(got, changes...) })
			change := func(i int, joined bool) {
				w.Add(presence.Change{Name: fmt.Sprint(i), Joined: joined, Size: names})
			}
			for i := range names {
				change(i, first)
			}
			var want []presence.Change
			for i := range names {
				if i%3 > 0 {
					change(i, !first) // undone
				}
				if i%3 == 2 {
					change(i, first) // and done again
				}
				if i%3 != 1 {
					want = append(want, presence.Change{Name: fmt.Sprint(i), Joined: first, Size: names})
				}
			}
			<-time.After(time.Minute)
			synctest.Wait()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("joined first: %v (-want +got):\n%s", first, diff)
			}
		})
	}
}
