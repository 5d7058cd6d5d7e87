package fanout_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/fanout"
)

// Random calls in one order, compared with what they have to deliver.
func TestTheOrderOfCallsDecidesWhoGetsWhat(t *testing.T) {
	for _, shards := range []int{1, 2, 64} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprintf("%d shards/seed %d", shards, seed), func(t *testing.T) {
				const members, groups, calls = 12, 4, 1000
				rng := rand.New(rand.NewPCG(seed, uint64(shards)))
				h := fanout.NewHub(shards)
				var group [groups]fanout.Group
				var in [members][groups]bool
				got := make([]recorder, members)
				member := make([]*fanout.Member, members)
				want := make([][groups][]int, members)
				for i := range member {
					member[i] = new(fanout.Member)
					var beside *fanout.Member
					if i > 0 && rng.IntN(2) == 0 {
						beside = member[i-1]
					}
					h.Add(member[i], &got[i], beside)
				}
				publish := func(g int, events ...int) {
					frames := make([]fanout.Frame, len(events))
					for i, e := range events {
						frames[i] = frame([2]int{g, e})
					}
					group[g].Publish(frames...)
					for m := range in {
						if in[m][g] {
							want[m][g] = append(want[m][g], events...)
						}
					}
				}
				for n := range calls {
					m, g := rng.IntN(members), rng.IntN(groups)
					switch rng.IntN(8) {
					case 0, 1:
						member[m].Join(&group[g])
						in[m][g] = true
					case 2:
						member[m].Leave(&group[g])
						in[m][g] = false
					case 3:
						if rng.IntN(8) == 0 {
							member[m].Remove()
							in[m] = [groups]bool{}
						}
					case 4:
						publish(g, n, -n)
					default:
						publish(g, n)
					}
				}
				flush(t, h)
				for m := range got {
					var of [groups][]int
					for _, e := range got[m].got {
						e := e.([2]int)
						of[e[0]] = append(of[e[0]], e[1])
					}
					if diff := cmp.Diff(want[m], of); diff != "" {
						t.Fatalf("member %d (-want +got):\n%s", m, diff)
					}
				}
			})
		}
	}
}

// A publisher must not depend on shards without members of its group.
func TestAPublisherTouchesOnlyShardsWithMembers(t *testing.T) {
	for _, tt := range []struct {
		name string
		was  func(m *fanout.Member, g *fanout.Group) // what the member elsewhere did before
	}{
		{"never a member", func(*fanout.Member, *fanout.Group) {}},
		{"left", func(m *fanout.Member, g *fanout.Group) { m.Join(g); m.Leave(g) }},
		{"removed", func(m *fanout.Member, g *fanout.Group) { m.Join(g); m.Remove() }},
		{"joined twice and left", func(m *fanout.Member, g *fanout.Group) { m.Join(g); m.Join(g); m.Leave(g) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := fanout.NewHub(2)
				var g, other fanout.Group
				var here, elsewhere recorder
				m, far := add(h, &here), add(h, &elsewhere)
				m.Join(&g)
				tt.was(far, &g)
				if err := far.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				far.Join(&other)
				release := held(far)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				big := fanout.Frame{Bytes: make([]byte, 1<<20)}
				for range 6 { // fills the inbox of the shard that is held
					other.Publish(big)
				}
				if err := g.Wait(ctx); err != nil {
					t.Errorf("Wait: %v", err)
				}
				g.Publish(big)
				if err := m.Flush(ctx); err != nil {
					t.Errorf("Flush: %v", err)
				}
				release()
				flush(t, h)
				if len(here.got) != 1 || len(elsewhere.got) != 6 {
					t.Errorf("%d and %d frames, want 1 and 6", len(here.got), len(elsewhere.got))
				}
			})
		})
	}
}

func TestMembersBesideEachOtherShareAShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := fanout.NewHub(8)
		var r [8]recorder
		first := add(h, &r[0])
		for i := range r[1:7] {
			add(h, &r[1+i])
		}
		m := new(fanout.Member)
		h.Add(m, &r[7], first)
		release := held(first)
		reached := false
		m.Do(func() { reached = true })
		synctest.Wait()
		if reached {
			t.Error("another dispatcher serves the second member")
		}
		release()
		flush(t, h)
		if !reached {
			t.Error("Do was not called")
		}
	})
}
