package daemon

import (
	"log/slog"
	"os"
	"syscall"
	"time"
)

const (
	// sameTerm is how long after the first signal another SIGTERM means the same:
	// some supervisors and GNU timeout send pairs.
	sameTerm = 2 * time.Second
	// sameInterrupt is that of a second Ctrl-C, which is a person's: a shorter time
	// than a finger needs, in which a wrapper passes on what the terminal sent both.
	sameInterrupt = 200 * time.Millisecond
)

// ending is the end of the program that a signal began. It tells a signal that
// asks for the end again, at once, from one that comes with the first.
type ending struct {
	signals <-chan os.Signal
	log     *slog.Logger
	first   os.Signal // nil when something else began it
	began   time.Time
	said    bool // that a signal was ignored, which is said once
}

// begin notes what began the end.
func (e *ending) begin(first os.Signal) {
	e.first, e.began = first, time.Now()
}

// insists reports whether a signal is to cut the end short. A SIGINT is, unless it
// is the double of a first one; a SIGTERM is when it comes later than sameTerm.
func (e *ending) insists(sig os.Signal) bool {
	after := time.Since(e.began)
	switch {
	case sig == syscall.SIGHUP:
		return false
	case sig == os.Interrupt && (e.first != os.Interrupt || after > sameInterrupt):
		return true
	case sig != os.Interrupt && after > sameTerm:
		return true
	}
	if !e.said {
		e.said = true
		e.log.Info("draining goes on: this signal came with the first; SIGINT, or a later SIGTERM, ends it at once",
			"signal", sig.String(), "after", after.Round(time.Millisecond))
	}
	return false
}

// surviveClosedStderr lets the program go on without a log when nobody reads it any
// more. Unless SIGPIPE is asked for, the first write to a closed stdout or stderr
// ends a Go program by that signal, which supervisors such as systemd take for an
// end in good order.
func surviveClosedStderr(proc Process) {
	proc.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // what comes is dropped
}
