package chaos

import (
	"testing"
	"time"
)

// The clients of a node that died are all back and resumed at the other one, none is
// closed and none misses or repeats a message. How long that takes the command
// measures, with more of them: see docs/scaling.md.
func TestClientsOfAKilledNodeResumeAtAnother(t *testing.T) {
	t.Parallel()
	for _, history := range []string{Redis, Postgres} {
		t.Run("history in "+history, func(t *testing.T) {
			t.Parallel()
			c := short(t)
			c.History, c.Clients, c.Rate = history, 500, StormRate
			c.patient = time.Minute
			needs(t, c)
			v, err := Storm(t.Context(), c, t.Output())
			judged(t, v, err)
		})
	}
}

// A node that is started again has them all back, too.
func TestClientsOfARestartedNodeComeBack(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, history string }{
		{"history in memory, which has forgotten", Memory},
		{"history in PostgreSQL", Postgres},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := short(t)
			c.Registry, c.History, c.Clients, c.Rate = Memory, test.history, 300, StormRate
			c.patient = time.Minute
			needs(t, c)
			v, err := Storm(t.Context(), c, t.Output())
			judged(t, v, err)
		})
	}
}

func judged(t *testing.T, v Verdict, err error) {
	t.Helper()
	if v = logged(t, v, err); !v.OK() {
		t.Errorf("findings %v", v.Findings)
	}
}
