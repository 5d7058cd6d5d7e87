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
	)
	for _, tt := range []struct {
		kind, message, want string
		ok                  bool
	}{
		{"chat", welcome, "since=7-e&since=0-e-@user1", true},
		{"chat", `{"type":"message","content":"x"}`, "", false},
		{"chat", "{}", "", false},
		{"centrifuge", reply, `"everyone":{"recover":true,"epoch":"e","offset":7}`, true},
		{"centrifuge", `{"push":{}}`, "", false},
		{"gws", welcome, "", false},
	} {
		got, ok := NewDialect(tt.kind, nil).Resume([]byte(tt.message))
		if got != tt.want || ok != tt.ok {
			t.Errorf("%s: Resume(%s) = %q, %v, want %q, %v", tt.kind, tt.message, got, ok, tt.want, tt.ok)
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
