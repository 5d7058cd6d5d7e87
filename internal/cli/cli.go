// Package cli is shared by the command-line programs of this module. It provides flags
// with environment variables, help made from the flags, and errors that are one line and
// an exit code.
package cli

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
)

// Exit codes, for shells and service supervisors.
const (
	OK      = 0
	Failure = 1 // a failure while running
	Usage   = 2 // a wrong flag, argument or setting; retrying does not help
)

// UsageError is a mistake in how a program was started: a wrong flag, argument or setting.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// Usagef returns a [UsageError] with a text as of [fmt.Errorf].
func Usagef(format string, args ...any) error {
	return UsageError{Err: fmt.Errorf(format, args...)}
}

// Exit prints err, unless it is nil, as one line to w, and returns the exit code. After a
// [UsageError] the line ends with hint in parentheses.
func Exit(w io.Writer, program, hint string, err error) int {
	switch {
	case err == nil:
		return OK
	case errors.As(err, new(UsageError)):
		fmt.Fprintf(w, "%s: %s (%s)\n", program, OneLine(err), hint)
		return Usage
	default:
		fmt.Fprintf(w, "%s: %s\n", program, OneLine(err))
		return Failure
	}
}

// OneLine returns the text of err as one line. Errors of other packages, and joined errors,
// may have several.
func OneLine(err error) string {
	var text strings.Builder
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		switch before := text.String(); {
		case before == "" || line == "":
		case strings.HasSuffix(before, ":"):
			text.WriteString(" ")
		default:
			text.WriteString("; ")
		}
		text.WriteString(line)
	}
	return text.String()
}

// Version returns the module version, Go version and platform of this build.
func Version() string {
	v := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("%s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
