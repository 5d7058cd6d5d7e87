package row

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// redisProcess is a Redis server that keeps nothing on disk.
type redisProcess struct {
	addr  string
	dir   string
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // closed when the process has
}

// redisScript runs a Redis server until the standard input ends, as the other servers do. It
// ignores a terminal's interrupt, which ends the server by way of this process.
const redisScript = `trap '' INT TERM; redis-server "$@" </dev/null & cat; kill -9 $!; wait`

// startRedis starts a Redis server, on any core.
func (l *Lab) startRedis(ctx context.Context) (*redisProcess, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	r := &redisProcess{addr: addr, dir: dir, ended: make(chan struct{})}
	r.cmd = exec.Command("sh", "-c", redisScript, "sh", "--bind", "127.0.0.1", "--port", port, "--dir", dir,
		"--logfile", filepath.Join(dir, "log"), "--save", "", "--appendonly", "no")
	stdin, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	r.stdin = stdin
	if err := l.startOnAnyCore(r.cmd); err != nil {
		return nil, errors.Join(fmt.Errorf("starting redis-server: %w", err), os.RemoveAll(dir))
	}
	go func() {
		_ = r.cmd.Wait() // it is killed
		close(r.ended)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; <-tick.C {
		_, err := r.info(ctx)
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil || time.Since(begin) > startTime {
			why, _ := os.ReadFile(filepath.Join(dir, "log"))
			r.stop()
			return nil, fmt.Errorf("starting redis-server: %w: %s", err, why)
		}
	}
}

// startOnAnyCore starts a program that is not pinned as this process is.
func (l *Lab) startOnAnyCore(cmd *exec.Cmd) error {
	if l.ServerCore < 0 {
		return cmd.Start()
	}
	// A process begins with the cores of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var own, all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		return err
	}
	for core := range runtime.NumCPU() {
		all.Set(core)
	}
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &own))
}

// freeAddress is one where nothing listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// stop ends the server.
func (r *redisProcess) stop() {
	_ = r.stdin.Close()
	select {
	case <-r.ended:
	case <-time.After(stopTime):
		_ = r.cmd.Process.Kill()
		<-r.ended
	}
	_ = os.RemoveAll(r.dir) // temporary
}

// redisInfo is what the command INFO answers.
type redisInfo map[string]string

// info asks the server. See https://redis.io/docs/latest/commands/info/.
func (r *redisProcess) info(ctx context.Context) (redisInfo, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(stopTime))
	if _, err := io.WriteString(conn, "INFO all\r\n"); err != nil {
		return nil, err
	}
	answer := bufio.NewReader(conn)
	head, err := answer.ReadString('\n')
	if err != nil {
		return nil, err
	}
	size, err := strconv.Atoi(strings.Trim(head, "$\r\n"))
	if err != nil {
		return nil, fmt.Errorf("redis: INFO: %q", head)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(answer, b); err != nil {
		return nil, err
	}
	info := make(redisInfo)
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info, nil
}

// number returns a number, 0 if there is none.
func (i redisInfo) number(name string) float64 {
	n, _ := strconv.ParseFloat(i[name], 64)
	return n
}

// cpu returns the microseconds of CPU that the server used.
func (i redisInfo) cpu() float64 {
	return 1e6 * (i.number("used_cpu_sys") + i.number("used_cpu_user"))
}

// calls returns how often a command ran, in scripts too.
func (i redisInfo) calls(command string) float64 {
	for field := range strings.SplitSeq(i["cmdstat_"+command], ",") {
		if calls, ok := strings.CutPrefix(field, "calls="); ok {
			n, _ := strconv.ParseFloat(calls, 64)
			return n
		}
	}
	return 0
}
