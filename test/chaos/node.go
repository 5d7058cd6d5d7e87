package chaos

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startWithin = 30 * time.Second
	// drain is the time in which a node closes its clients' sockets.
	drain = 10 * time.Second
)

// node is a chatd that can be killed, drained and restarted at the same address.
type node struct {
	name    string
	address string
	debug   string // address of /metrics
	args    []string
	program string
	log     io.Writer
	report  *report
	stores  *disturbance  // of what all nodes stand on
	offset  time.Duration // of its clock
	front   *line         // some clients come by
	redis   *line         // nil: none
	sql     *line         // nil: none
	disturbance

	process *process
	fresh   footprint // before any client came
}

var listening = regexp.MustCompile(`^listening on http://`)

func (n *node) start(ctx context.Context) error {
	cmd := exec.Command(n.program, n.args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CHATD_") })
	cmd.Env = append(cmd.Env, clockEnv(n.offset), "GORACE=atexit_sleep_ms=0 halt_on_error=1")
	p, err := start(n.name, cmd, n.log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if _, err := p.await(ctx, listening); err != nil {
		_ = p.end(syscall.SIGKILL, endWithin)
		return err
	}
	n.process = p
	return nil
}

// now is the time of the node's clock.
func (n *node) now() time.Time { return time.Now().Add(n.offset) }

// kill ends the process with SIGKILL.
func (n *node) kill() error {
	n.process.killed.Store(true)
	err := n.process.end(syscall.SIGKILL, endWithin)
	n.judge(false)
	return err
}

// drainAway ends the process with SIGTERM and checks its exit.
func (n *node) drainAway() error {
	err := n.process.end(syscall.SIGTERM, drain+endWithin)
	n.judge(true)
	return err
}

// judge checks the exit code of a process: 0 after draining, 1 if it could not reach a
// backend to report its end.
func (n *node) judge(well bool) {
	switch code := n.process.cmd.ProcessState.ExitCode(); {
	case !well || code == 0:
	case code == 1 && n.stores.disturbed():
		n.report.tally("nodes that drained and could not sign off")
	default:
		n.report.find(findProcess, "%s ended with %v after SIGTERM: %s", n.name, n.process.cmd.ProcessState, n.process.lastLine())
	}
	for _, complaint := range n.process.complaints() {
		n.report.find(findProcess, "%s said: %s", n.name, complaint)
	}
}

// footprint is what a process uses.
type footprint struct {
	sockets    int
	goroutines int // -1: it does not say
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)`)

func (n *node) footprint(ctx context.Context) (f footprint, err error) {
	fds := filepath.Join("/proc", strconv.Itoa(n.process.pid()), "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		return f, err
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			f.sockets++
		}
	}
	f.goroutines = -1
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.debug+"/metrics", nil)
	if err != nil {
		return f, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: startWithin}).Do(req)
	if err != nil {
		return f, err
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		return f, err
	}
	if m := goroutines.FindSubmatch(metrics); m != nil {
		f.goroutines, err = strconv.Atoi(string(m[1]))
	}
	return f, err
}

// remember records what the node uses before it has clients.
func (n *node) remember(ctx context.Context) (err error) {
	n.fresh, err = n.footprint(ctx)
	return err
}

// build builds the nodes' program and returns its path.
func build(ctx context.Context, dir string, config Config) (program string, err error) {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/reto10/chat")
	root, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("finding the sources: %w", err)
	}
	name := "chatd-cluster"
	if config.plain() {
		name = "chatd"
	}
	program = filepath.Join(dir, name)
	args := []string{"build", "-buildvcs=false", "-o", program}
	if config.Race {
		args = append(args, "-race")
	}
	if config.Skew > 0 {
		overlay, err := clockOverlay(dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = filepath.Join(string(bytes.TrimSpace(root)), "cmd", name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	return program, nil
}
