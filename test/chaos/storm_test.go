package chaos

import (
	"testing"
	"time"
)

// All clients of a dead node reconnect and resume at another node. None is closed, and none
// misses or repeats a message. The command measures the time, with more clients: see
// docs/scaling.md.
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

// All clients also resume at a node that is restarted.
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
