package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// startWithin bounds the start of a server.
	startWithin = 30 * time.Second
	// mostLogged is how many of the last lines of a log are kept.
	mostLogged = 10
)

// server is the process under attack. Its methods are safe for concurrent use.
type server struct {
	addr  string // host:port on loopback
	pid   int
	cmd   *exec.Cmd     // nil in the process that attacks
	lines atomic.Int64  // written to the log so far
	done  chan struct{} // closed when the process has ended

	mu   sync.Mutex // guards last
	last []string   // of the log
}

// startServer starts a chatd, or this program as a server. The caller stops it.
func (b *bench) startServer(ctx context.Context, library bool) (*server, error) {
	var cmd *exec.Cmd
	if library {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		cmd = exec.CommandContext(ctx, self)
		cmd.Env = append(os.Environ(), serveVariable+"="+b.users())
	} else {
		cmd = exec.CommandContext(ctx, b.binary, "-plaintext", "-addr", "127.0.0.1:0", "-users", b.users(),
			"-secret-file", b.secret(), "-trusted-proxies", "127.0.0.0/8")
		for _, v := range os.Environ() {
			if !strings.HasPrefix(v, "CHATD_") || strings.HasPrefix(v, "CHATD_REGISTRY=") || strings.HasPrefix(v, "CHATD_HISTORY=") {
				cmd.Env = append(cmd.Env, v)
			}
		}
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a server: %w", err)
	}
	s.pid = cmd.Process.Pid
	listening := make(chan string, 1)
	go func() {
		defer close(s.done)
		s.read(stderr, listening)
		_ = cmd.Wait() // how it ended is in its log
	}()
	select {
	case where := <-listening:
		if s.addr, err = loopback(where); err != nil {
			s.stop()
			return nil, err
		}
		return s, nil
	case <-s.done:
		return nil, fmt.Errorf("the server did not start:\n%s", s.lastLines())
	case <-time.After(startWithin):
		s.stop()
		return nil, errors.New("the server does not say where it listens")
	}
}

// loopback returns the address in a server's URL, which must be on this machine.
func loopback(where string) (string, error) {
	u, err := url.Parse(where)
	if err != nil {
		return "", fmt.Errorf("where the server listens: %w", err)
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		return "", fmt.Errorf("the server listens on %s: only one on loopback is attacked", u.Host)
	}
	return u.Host, nil
}

// read counts the lines of the log, and finds the one with the server's address.
func (s *server) read(log io.Reader, listening chan<- string) {
	scanner := bufio.NewScanner(log)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		s.lines.Add(1)
		if where, ok := strings.CutPrefix(scanner.Text(), "listening on "); ok {
			select {
			case listening <- where:
			default:
			}
		}
		s.mu.Lock()
		if len(s.last) == mostLogged {
			s.last = s.last[1:]
		}
		s.last = append(s.last, scanner.Text())
		s.mu.Unlock()
	}
}

func (s *server) lastLines() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.last, "\n")
}

func (s *server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// stop kills the process: it keeps nothing.
func (s *server) stop() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// spent returns the CPU time of the process, 0 if the system does not provide it.
func (s *server) spent() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // behind the name, which may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ
}

// memory returns the process's resident memory in bytes (VmRSS), 0 if the system does not
// provide it.
func (s *server) memory() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if size, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(size)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}
