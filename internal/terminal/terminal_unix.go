//go:build linux || darwin || freebsd

package terminal

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unsafe"
)

// Is reports whether f is a terminal.
func Is(f *os.File) bool {
	_, err := attributes(f)
	return err == nil
}

// unknownWidth is the width of a terminal that does not report one.
const unknownWidth = 80

// Width returns the number of columns of f if it is a terminal, else 0.
func Width(f *os.File) int {
	if !Is(f) {
		return 0
	}
	var size struct{ rows, columns, x, y uint16 } // of tty_ioctl(4)
	if err := ioctl(f, syscall.TIOCGWINSZ, unsafe.Pointer(&size)); err != nil || size.columns == 0 {
		return unknownWidth
	}
	return int(size.columns)
}

// ReadPassword writes a prompt to the terminal of the process and returns the line that is
// typed there, without its end. It uses the terminal even when stdin and stdout are
// redirected. What is typed does not show. Ctrl-C, SIGTERM, SIGHUP and SIGQUIT end it with
// an error that wraps [ErrInterrupted]. It restores the terminal in every case. It ignores
// Ctrl-Z, since a shell would show what is typed next. Not for concurrent use.
func ReadPassword(prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNone, err)
	}
	defer func() { _ = tty.Close() }() // ends the read, too

	before, err := attributes(tty)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNone, err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTSTP)
	defer signal.Stop(stops)

	silent := before
	silent.Lflag &^= syscall.ECHO
	silent.Lflag |= syscall.ICANON | syscall.ISIG
	silent.Iflag |= syscall.ICRNL
	if err := setAttributesOf(tty, silent); err != nil {
		return "", fmt.Errorf("turning off the echo of the terminal: %w", err)
	}
	defer func() { _ = setAttributesOf(tty, before) }() // fails only if the terminal is gone
	if _, err := io.WriteString(tty, prompt); err != nil {
		return "", fmt.Errorf("writing the prompt to the terminal: %w", err)
	}
	defer io.WriteString(tty, "\n") // the newline that was typed did not show

	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		line, err := readLine(tty)
		answered <- answer{line, err}
	}()
	select {
	case a := <-answered:
		return a.line, a.err
	case sig := <-signals:
		return "", fmt.Errorf("%w (%v)", ErrInterrupted, sig)
	}
}

// readLine reads up to the end of a line. A terminal returns one line at most.
func readLine(r io.Reader) (string, error) {
	line := make([]byte, 0, MaxLine)
	for len(line) < MaxLine {
		n, err := r.Read(line[len(line):MaxLine])
		line = line[:len(line)+n]
		if n > 0 && line[len(line)-1] == '\n' {
			return strings.TrimRight(string(line), "\r\n"), nil
		}
		if err == io.EOF || err == nil && n == 0 { // Ctrl-D
			return string(line), nil
		}
		if err != nil {
			return "", fmt.Errorf("reading from the terminal: %w", err)
		}
	}
	return "", fmt.Errorf("the line is longer than %d bytes", MaxLine)
}

func attributes(f *os.File) (a syscall.Termios, err error) {
	err = ioctl(f, getAttributes, unsafe.Pointer(&a))
	return a, err
}

func setAttributesOf(f *os.File, a syscall.Termios) error {
	return ioctl(f, setAttributes, unsafe.Pointer(&a))
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg))
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("ioctl", errno)
	}
	return err
}
