package chaos

import (
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

func TestObserverFindsWhatIsAnnouncedTwice(t *testing.T) {
	tests := []struct {
		name    string
		doubted bool // Redis lost data just now
		events  []string
		want    map[string]int
	}{
		{"once each", false, []string{"user_joined", "user_left", "user_joined"}, map[string]int{}},
		{"a join twice", false, []string{"user_joined", "user_joined"}, map[string]int{findPresence: 1}},
		{"a leave twice", false, []string{"user_left", "user_left"}, map[string]int{findPresence: 1}},
		{"a leave twice on two connections", false, []string{"user_left", "", "user_left"}, map[string]int{}},
		{"a leave twice after Redis lost data", true, []string{"user_left", "user_left"}, map[string]int{}},
		{"a join twice after Redis lost data", true, []string{"user_joined", "user_joined"}, map[string]int{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newReport(io.Discard)
			c := &cluster{report: r}
			if test.doubted {
				c.doubtful.open()()
			}
			o := newObserver(&client{cluster: c, report: r, user: chat.User{Name: "observer"}})
			for _, what := range test.events {
				o.hear(event{Type: what, Username: "ana"})
			}
			if diff := cmp.Diff(test.want, r.verdict().Findings); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}
