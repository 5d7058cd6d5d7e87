package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// broken matches what no log may contain.
var broken = regexp.MustCompile(`DATA RACE|^panic: |fatal error: |^goroutine \d+ \[`)

// process is a process that this one started and ends by its pid.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and all it said was read

	killed atomic.Bool // its sockets end without a close frame

	mu      sync.Mutex // guards what follows
	lines   []string   // what it said on stderr and stdout
	changed chan struct{}
}

// start runs a command. Its output also goes to log.
func start(name string, cmd *exec.Cmd, log io.Writer) (*process, error) {
	p := &process{name: name, cmd: cmd, done: make(chan struct{}), changed: make(chan struct{})}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // a Ctrl-C is for us to pass on
	err = cmd.Start()
	_ = in.Close() // the process has its own
	if err != nil {
		_ = out.Close() // nothing was read
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		defer func() { _ = out.Close() }() // it was only read
		p.read(out, log)
		_ = cmd.Wait() // says nothing that ProcessState does not
	}()
	return p, nil
}

func (p *process) read(out io.Reader, log io.Writer) {
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		fmt.Fprintln(log, scanner.Text())
		p.mu.Lock()
		p.lines = append(p.lines, scanner.Text())
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// await waits for the first line that matches and returns its groups.
func (p *process) await(ctx context.Context, want *regexp.Regexp) ([]string, error) {
	seen := 0
	for {
		p.mu.Lock()
		lines, changed := p.lines[seen:], p.changed
		p.mu.Unlock()
		seen += len(lines)
		for _, line := range lines {
			if m := want.FindStringSubmatch(line); m != nil {
				return m, nil
			}
		}
		select {
		case <-changed:
		case <-p.done:
			return nil, fmt.Errorf("%s ended (%v): %s", p.name, p.cmd.ProcessState, p.lastLine())
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s to say %s: %w", p.name, want, ctx.Err())
		}
	}
}

func (p *process) lastLine() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines) == 0 {
		return "it said nothing"
	}
	return p.lines[len(p.lines)-1]
}

// complaints returns the lines that show that the program itself is broken.
func (p *process) complaints() (found []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if broken.MatchString(line) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// warnings returns the number of log lines at Warn or above, and their bytes.
func (p *process) warnings() (lines, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			lines++
			bytes += len(line) + 1
		}
	}
	return lines, bytes
}

func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s: %v: %w", p.name, sig, err)
	}
	return nil
}

// end sends a signal and waits for the end of the process. After the time it kills the
// process and returns an error.
func (p *process) end(sig syscall.Signal, within time.Duration) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	overdue := time.NewTimer(within)
	defer overdue.Stop()
	select {
	case <-p.done:
		return nil
	case <-overdue.C:
		_ = p.signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("%s did not end within %v of %v", p.name, within, sig)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }
