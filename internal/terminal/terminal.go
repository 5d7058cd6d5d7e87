// Package terminal reads passwords from the terminal of a process.
package terminal

import "errors"

var (
	// ErrNone means that the process has no terminal, as when cron started it.
	ErrNone = errors.New("the process has no terminal")
	// ErrInterrupted means that Ctrl-C or a signal ended the reading.
	ErrInterrupted = errors.New("interrupted")
)

// MaxLine bounds a line that is typed, in bytes.
const MaxLine = 1024
