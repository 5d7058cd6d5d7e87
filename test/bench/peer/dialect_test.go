package peer

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResume(t *testing.T) {
	const (
		welcome = `{"type":"welcome","session":"s","since":["7-e","0-e-@user1"]}`
		reply   = `{"id":1,"connect":{"client":"c","subs":{"everyone":{"epoch":"e","offset":7}}}}`
		one     = `{"id":1,"connect":{"client":"c","subs":{"@u":{"epoch":"f","offset":0}}}}`
	)
	for _, tt := range []struct {
		kind, message string
		all           bool
		want          string
		ok            bool
	}{
		{"chat", welcome, false, "since=7-e", true},
		{"chat", welcome, true, "since=7-e&since=0-e-@user1", true},
		{"chat", `{"type":"message","content":"x"}`, true, "", false},
		{"chat", "{}", true, "", false},
		{"centrifuge", reply, false, `"everyone":{"recover":true,"epoch":"e","offset":7}`, true},
		{"centrifuge", one, true, `"@u":{"recover":true,"epoch":"f","offset":0}`, true},
		{"centrifuge", one, false, "", true},
		{"centrifuge", reply, true, `"everyone":{"recover":true,"epoch":"e","offset":7}`, true},
		{"centrifuge", `{"push":{}}`, true, "", false},
		{"gws", welcome, true, "", false},
	} {
		got, ok := NewDialect(tt.kind, nil).Resume([]byte(tt.message), tt.all)
		if got != tt.want || ok != tt.ok {
			t.Errorf("%s: Resume(%s, %v) = %q, %v, want %q, %v", tt.kind, tt.message, tt.all, got, ok, tt.want, tt.ok)
		}
	}
}

func TestStamps(t *testing.T) {
	for event, want := range map[string][]uint64{
		"":                       nil,
		`{"type":"welcome"}`:     nil,
		`[~7 8 x],[~8 9 x]`:      {7, 8},
		`{"id":"a~b"}, [~7 8 x]`: {7},
	} {
		var got []uint64
		n := Stamps([]byte(event), func(seq uint64) { got = append(got, seq) })
		if diff := cmp.Diff(want, slices.Clone(got)); diff != "" || n != len(want) {
			t.Errorf("Stamps(%s) = %d (-want +got):\n%s", event, n, diff)
		}
	}
}
