package daemon

import (
	"log/slog"
	"os"
	"syscall"
	"time"
)

const (
	// termPairTime is how long after the first signal a SIGTERM counts as its repeat:
	// some supervisors, and GNU timeout, send two.
	termPairTime = 2 * time.Second
	// interruptPairTime is the same for a SIGINT that follows a SIGINT. A terminal and a
	// wrapper script may both deliver one Ctrl-C; a person's second Ctrl-C takes longer.
	interruptPairTime = 200 * time.Millisecond
)

// shutdown is a shutdown under way. It tells a signal that demands an immediate end from
// one that only repeats the first. Not for concurrent use.
type shutdown struct {
	signals <-chan os.Signal
	log     *slog.Logger
	first   os.Signal // nil when no signal began the shutdown
	began   time.Time
	logged  bool // a repeated signal was logged; the next ones are not
}

// begin notes what began the shutdown.
func (s *shutdown) begin(first os.Signal) {
	s.first, s.began = first, time.Now()
}

// forcedBy reports whether a further signal ends the shutdown at once. A SIGINT does,
// unless it repeats a first SIGINT. A SIGTERM does when it comes after termPairTime.
func (s *shutdown) forcedBy(sig os.Signal) bool {
	after := time.Since(s.began)
	switch {
	case sig == syscall.SIGHUP:
		return false
	case sig == os.Interrupt && (s.first != os.Interrupt || after > interruptPairTime):
		return true
	case sig != os.Interrupt && after > termPairTime:
		return true
	}
	if !s.logged {
		s.logged = true
		s.log.Info("still draining: this signal repeats the first one; to end at once send SIGINT, or SIGTERM after 2s",
			"signal", sig.String(), "after", after.Round(time.Millisecond))
	}
	return false
}

// surviveClosedStderr keeps the program running when nobody reads its log any more. By
// default a Go program that writes to a closed stdout or stderr dies of SIGPIPE, which
// systemd takes for a clean exit.
func surviveClosedStderr(proc Process) {
	proc.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // the signals are dropped
}
