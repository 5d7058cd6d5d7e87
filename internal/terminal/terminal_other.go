//go:build !linux && !darwin && !freebsd

package terminal

import "os"

// Is reports whether f is a character device. Terminals cannot be told from other
// character devices here.
func Is(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Width returns 80 if f is a terminal, else 0. The true width is unknown here.
func Width(f *os.File) int {
	if !Is(f) {
		return 0
	}
	return 80
}

// ReadPassword returns ErrNone: this system offers no way to hide what is typed.
func ReadPassword(string) (string, error) { return "", ErrNone }
