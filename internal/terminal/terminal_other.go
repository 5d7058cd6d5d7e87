//go:build !linux && !darwin && !freebsd

package terminal

import "os"

// Is reports whether f is a terminal, as far as that can be told here: any
// device of characters counts.
func Is(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// ReadPassword cannot keep an answer from being seen here, so it does not ask.
func ReadPassword(string) (string, error) { return "", ErrNone }
