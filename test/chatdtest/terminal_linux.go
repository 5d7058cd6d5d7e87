package chatdtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// Terminal is a terminal and a program in it. The program's stdin, stderr and /dev/tty are the
// terminal.
type Terminal struct {
	t              testing.TB
	keyboard, line *os.File // its two ends (pty(7))
	cmd            *exec.Cmd
	done           chan struct{} // closed when the program has ended
	reading        sync.WaitGroup

	mu      sync.Mutex
	shown   []byte        // on the screen
	printed bytes.Buffer  // on stdout; complete once done is closed
	changed chan struct{} // closed when more is shown, and then another one
}

// AtTerminal runs a program at a terminal until the test ends.
func (p Program) AtTerminal(t testing.TB, env []string, args ...string) *Terminal {
	t.Helper()
	return p.atTerminal(t, 0, env, args)
}

// OnScreen is AtTerminal with a number of columns; stdout is the terminal, too.
func (p Program) OnScreen(t testing.TB, columns int, env []string, args ...string) *Terminal {
	t.Helper()
	return p.atTerminal(t, columns, env, args)
}

func (p Program) atTerminal(t testing.TB, columns int, env, args []string) *Terminal {
	t.Helper()
	x := &Terminal{t: t, cmd: p.command(env, args), done: make(chan struct{}), changed: make(chan struct{})}
	var err error
	if x.keyboard, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	var locked, number int32
	x.control(x.keyboard, syscall.TIOCSPTLCK, unsafe.Pointer(&locked))
	x.control(x.keyboard, syscall.TIOCGPTN, unsafe.Pointer(&number))
	if x.line, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = x.line, &x.printed, x.line
	if columns > 0 {
		x.cmd.Stdout = x.line
		size := struct{ rows, columns, x, y uint16 }{24, uint16(columns), 0, 0}
		x.control(x.line, syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	}
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	x.reading.Go(x.watch)
	go func() {
		defer close(x.done)
		_ = x.cmd.Wait() // says nothing that ProcessState does not
	}()
	t.Cleanup(func() {
		x.cmd.Process.Kill()
		<-x.done
		_ = x.keyboard.Close() // a terminal has nothing to flush
		_ = x.line.Close()
		x.reading.Wait()
		if t.Failed() {
			t.Logf("the terminal shows:\n%s", x.Shown())
		}
	})
	return x
}

func (x *Terminal) watch() {
	buf := make([]byte, 4096)
	for {
		n, err := x.keyboard.Read(buf)
		x.mu.Lock()
		x.shown = append(x.shown, buf[:n]...)
		close(x.changed)
		x.changed = make(chan struct{})
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (x *Terminal) control(f *os.File, request uintptr, arg unsafe.Pointer) {
	x.t.Helper()
	conn, err := f.SyscallConn()
	if err != nil {
		x.t.Fatal(err)
	}
	var errno syscall.Errno
	if err := conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg))
	}); err != nil {
		x.t.Fatal(err)
	}
	if errno != 0 {
		x.t.Fatal(os.NewSyscallError("ioctl", errno))
	}
}

// Echoes reports whether the terminal shows what is typed.
func (x *Terminal) Echoes() bool {
	x.t.Helper()
	var a syscall.Termios
	x.control(x.keyboard, syscall.TCGETS, unsafe.Pointer(&a))
	return a.Lflag&syscall.ECHO != 0
}

// Type presses keys; "\n" is Enter, "\x03" is Ctrl-C.
func (x *Terminal) Type(keys string) {
	x.t.Helper()
	if _, err := x.keyboard.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// Shown returns what was printed on the screen so far.
func (x *Terminal) Shown() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return string(x.shown)
}

// Await waits for a match on the screen.
func (x *Terminal) Await(want *regexp.Regexp) {
	x.t.Helper()
	deadline := time.After(Patience)
	for {
		x.mu.Lock()
		text, changed := string(x.shown), x.changed
		x.mu.Unlock()
		if want.MatchString(text) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			x.t.Fatalf("the terminal does not show %s but:\n%s", want, text)
		}
	}
}

// Signal sends the program a signal.
func (x *Terminal) Signal(sig syscall.Signal) {
	x.t.Helper()
	if err := x.cmd.Process.Signal(sig); err != nil {
		x.t.Fatal(err)
	}
}

// End waits for the program's end, and returns what it printed on stdout.
func (x *Terminal) End() (printed string, code int) {
	x.t.Helper()
	select {
	case <-x.done:
	case <-time.After(Patience):
		x.t.Fatal("it does not end")
	}
	return x.printed.String(), x.cmd.ProcessState.ExitCode()
}
