//go:build !linux && !darwin && !freebsd

package terminal

import "os"

// Is reports whether f is a terminal, as far as that can be told here: any
// device of characters counts.
func Is(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Width is 80 where f is a terminal, whose size cannot be told here, else 0.
func Width(f *os.File) int {
	if !Is(f) {
		return 0
	}
	return 80
}

// ReadPassword cannot keep an answer from being seen here, so it does not ask.
func ReadPassword(string) (string, error) { return "", ErrNone }
