// Package terminal asks for passwords at the terminal that a process was started
// at.
package terminal

import "errors"

var (
	// ErrNone means that there is nobody to ask: the process has no terminal, as
	// when cron started it.
	ErrNone = errors.New("there is no terminal to ask at")
	// ErrInterrupted means that Ctrl-C or a signal came instead of an answer.
	ErrInterrupted = errors.New("interrupted")
)

// MaxLine is how many bytes of an answer are read.
const MaxLine = 1024
