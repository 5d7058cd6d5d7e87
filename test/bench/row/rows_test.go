package row

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/bench/report"
)

// kindsOf returns the servers of a row.
func kindsOf(t *testing.T, name string) []string {
	t.Helper()
	i := slices.IndexFunc(Rows, func(r Row) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("no row %s", name)
	}
	return Rows[i].Kinds
}

func TestRowMeasures(t *testing.T) {
	dependOnServers(t)
	listed := make(map[string]bool)
	for _, m := range report.Measures {
		listed[m.ID] = true
	}
	for name, want := range map[string][]string{
		"direct":    {"direct.1", "direct.64", "direct.growth"},
		"post":      {"post.cpu", "post.rate"},
		"reconnect": {"reconnect"},
	} {
		t.Run(name, func(t *testing.T) {
			i := slices.IndexFunc(Rows, func(r Row) bool { return r.Name == name })
			ctx, cancel := context.WithTimeout(t.Context(), rowLimit)
			defer cancel()
			l := newLab(t)
			l.Quick = true
			v, err := Rows[i].Run(l, ctx, "chat")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(v))); diff != "" {
				t.Errorf("measures (-want +got):\n%s", diff)
			}
			for _, id := range want {
				if !listed[id] || v[id] <= 0 {
					t.Errorf("%s = %v, in the report: %v; want more than 0 and true", id, v[id], listed[id])
				}
			}
		})
	}
}
