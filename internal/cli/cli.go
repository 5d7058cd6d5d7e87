// Package cli is what the command-line programs of this module have in common:
// flags that an environment variable stands in for, help made from the flags, and
// errors that are one line and an exit code.
package cli

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
)

// Exit codes: what a shell and a service supervisor see.
const (
	OK      = 0
	Failure = 1 // it was tried and went wrong
	Usage   = 2 // it was asked for in a way that makes no sense
)

// UsageError is an error that reading the help would have spared.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// Usagef is [fmt.Errorf] for a [UsageError].
func Usagef(format string, args ...any) error {
	return UsageError{Err: fmt.Errorf(format, args...)}
}

// Exit tells of err, if there is one, in one line on w, and returns the code to
// exit with. What follows a [UsageError] in parentheses is hint.
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

// OneLine is the text of err, for errors of others, and of several at once, that
// take more.
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

// Version says which build this is, as far as the build says so itself.
func Version() string {
	v := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("%s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
