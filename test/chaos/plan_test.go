package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPlanIsTheSameForTheSameSeed(t *testing.T) {
	c := Default()
	if diff := cmp.Diff(describe(plan(c)), describe(plan(c))); diff != "" {
		t.Errorf("plans of one seed differ:\n%s", diff)
	}
	other := c
	other.Seed++
	if describe(plan(c)) == describe(plan(other)) {
		t.Error("another seed has the same plan")
	}
}

// onlyLossy are the faults for runs that may lose data.
var onlyLossy = map[string]bool{
	"redis-older-snapshot": true, "redis-older-file": true, "redis-crashed-without-fsync": true,
	"redis-back-empty": true, "redis-back-empty-behind-a-node": true, "redis-emptied": true,
	"redis-replica-promoted": true,
	"postgres-older-copy":    true, "postgres-crashed-without-fsync": true, "postgres-standby-promoted": true,
}

func TestPlanHasEveryFaultThatAppliesBeforeAnyComesAgain(t *testing.T) {
	tests := []struct {
		name              string
		registry, history string
		lossy             bool
	}{
		{"Redis and PostgreSQL", Redis, Postgres, false},
		{"Redis", Redis, Redis, false},
		{"Redis and PostgreSQL that lose data", Redis, Postgres, true},
		{"Redis that loses data", Redis, Redis, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := Default()
			c.Registry, c.History, c.Lossy, c.Length = test.registry, test.history, test.lossy, time.Hour
			want := make(map[string]bool)
			for _, f := range faults {
				if strings.Contains(f.about, "postgres") && test.history != Postgres || !test.lossy && onlyLossy[f.name] {
					continue
				}
				want[f.name] = true
			}
			got := make(map[string]bool)
			for _, s := range plan(c)[:len(want)] {
				got[s.fault] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanHasNoTwoFaultsAboutTheSameAtOnce(t *testing.T) {
	c := Default()
	c.Length, c.Lossy = time.Hour, true
	until := make(map[string]time.Duration)
	for _, s := range plan(c) {
		f, _ := faultNamed(s.fault)
		for _, about := range []string{f.about, f.also} {
			if s.at < until[about] && about != "" {
				t.Errorf("%v while another fault about %s is under way", s, about)
			}
			until[about] = s.at + s.lasts
		}
		if s.node >= c.Nodes {
			t.Errorf("%v: there are %d nodes", s, c.Nodes)
		}
		if s.lasts < f.least || s.lasts > f.most {
			t.Errorf("%v lasts less than %v or more than %v", s, f.least, f.most)
		}
	}
}

func TestSeedsCoverEveryKindOfRun(t *testing.T) {
	type kind struct {
		lossy bool
		skew  time.Duration
	}
	got := make(map[kind]int)
	for seed := range uint64(4) {
		c := Default()
		c.Seed = seed + 1
		c = c.ForSeed()
		got[kind{c.Lossy, c.Skew}]++
	}
	want := map[kind]int{{false, 0}: 1, {true, 0}: 1, {false, time.Hour}: 1, {true, time.Hour}: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("four seeds (-want +got):\n%s", diff)
	}
}
