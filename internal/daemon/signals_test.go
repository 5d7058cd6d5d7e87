package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestASignalThatRepeatsTheFirstDoesNotForceTheEnd(t *testing.T) {
	const term, interrupt, hup = syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP
	tests := map[string]struct {
		first  os.Signal
		after  time.Duration
		second os.Signal
		want   bool
	}{
		"a pair":                        {term, 0, term, false},
		"a slow pair":                   {term, time.Second, term, false},
		"again":                         {term, 3 * time.Second, term, true},
		"Ctrl-C while it drains":        {term, 0, interrupt, true},
		"a terminal and a wrapper":      {interrupt, 0, interrupt, false},
		"Ctrl-C twice":                  {interrupt, 300 * time.Millisecond, interrupt, true},
		"a supervisor after a Ctrl-C":   {interrupt, time.Second, term, false},
		"a late one after a Ctrl-C":     {interrupt, 3 * time.Second, term, true},
		"a pair when a context ended":   {nil, 0, term, false},
		"Ctrl-C when a context ended":   {nil, 0, interrupt, true},
		"reading the files again":       {term, time.Hour, hup, false},
		"reading them again after that": {interrupt, 0, hup, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				e := &shutdown{log: newLogger(&out, slog.LevelInfo, "text")}
				e.begin(test.first)
				<-time.After(test.after)
				for range 2 {
					if got := e.forcedBy(test.second); got != test.want {
						t.Errorf("forced: %v, want %v", got, test.want)
					}
				}
				want := 0
				if !test.want && test.second != hup {
					want = 1
				}
				if got := strings.Count(out.String(), "\n"); got != want {
					t.Errorf("%d lines logged, want %d:\n%s", got, want, out.String())
				}
			})
		})
	}
}
