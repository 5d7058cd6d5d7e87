package chaos

import (
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

func TestPlanHasEveryFaultThatAppliesBeforeAnyComesAgain(t *testing.T) {
	tests := []struct {
		name              string
		registry, history string
		missing           []string
	}{
		{"Redis and PostgreSQL", Redis, Postgres, nil},
		{"Redis", Redis, Redis, []string{"postgres-restarted", "postgres-crashed", "node-loses-postgres", "node-postgres-blackholed", "node-postgres-slow"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := Default()
			c.Registry, c.History, c.Length = test.registry, test.history, time.Hour
			want := make(map[string]bool)
			for _, name := range Faults() {
				want[name] = true
			}
			for _, name := range test.missing {
				delete(want, name)
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
	c.Length = time.Hour
	until := make(map[string]time.Duration)
	for _, s := range plan(c) {
		f, _ := faultNamed(s.fault)
		if s.at < until[f.about] {
			t.Errorf("%v while another fault about %s is under way", s, f.about)
		}
		if s.node >= c.Nodes {
			t.Errorf("%v: there are %d nodes", s, c.Nodes)
		}
		if s.lasts < f.least || s.lasts > f.most {
			t.Errorf("%v lasts less than %v or more than %v", s, f.least, f.most)
		}
		until[f.about] = s.at + s.lasts
	}
}
