// Package redistest starts real Redis servers for tests.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience is how long a server may take to come up or to change.
const patience = 30 * time.Second

// Server is a redis-server process of a test's own. It ends with the test.
type Server struct {
	Addr string // host:port on loopback

	t    testing.TB
	dir  string
	args []string // of the program
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// Start starts a server that keeps what it has in an append-only file, written
// through at every command, with more of its configuration as arguments
// ("--name", "value"). In CI a missing redis-server fails the test, elsewhere it is
// skipped.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	need(t, "redis-server")
	s := &Server{t: t, dir: t.TempDir(), Addr: freeAddr(t)}
	_, port, _ := net.SplitHostPort(s.Addr)
	s.args = append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", s.dir,
		"--logfile", filepath.Join(s.dir, "log"), "--save", "",
		"--appendonly", "yes", "--appendfsync", "always"}, args...)
	s.Run()
	t.Cleanup(func() { s.Kill() })
	return s
}

func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v (scripts/needs installs it)", err)
		}
		t.Skipf("%v (scripts/needs installs it)", err)
	}
}

// freeAddr is an address with a port, and one 10000 higher for the bus of a cluster,
// where nothing listens.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		bus, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+10000))
		_ = l.Close()
		if err == nil {
			_ = bus.Close()
			return fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
	t.Fatal("no free port")
	return ""
}

// Run starts the process, with what it kept, and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	cmd, done := exec.Command("redis-server", s.args...), make(chan struct{})
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd, s.done = cmd, done
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	c := s.Client()
	defer c.Close()
	s.Await("the server's answer", func() bool { return c.Ping(context.Background()).Err() == nil })
}

// Client is a client of the server's, without retries. Close it.
func (s *Server) Client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true})
}

// Kill ends the process at once.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // an error: it has ended
	<-s.done
}

// Forget removes what an ended server kept.
func (s *Server) Forget() {
	s.t.Helper()
	if err := os.RemoveAll(s.appendOnlyDir()); err != nil {
		s.t.Fatal(err)
	}
}

// Dump is what SAVE wrote; Restore has a server that was ended begin with it.
func (s *Server) Dump() []byte {
	s.t.Helper()
	dump, err := os.ReadFile(filepath.Join(s.dir, "dump.rdb"))
	if err != nil {
		s.t.Fatal(err)
	}
	return dump
}

// Restore is described at Dump.
func (s *Server) Restore(dump []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "dump.rdb"), dump, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// CopyAppendOnly copies the append-only file of a server that runs, for
// RestoreAppendOnly.
func (s *Server) CopyAppendOnly() (dir string) {
	s.t.Helper()
	dir = s.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.appendOnlyDir())); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// RestoreAppendOnly has a server that was ended begin with what CopyAppendOnly
// copied.
func (s *Server) RestoreAppendOnly(dir string) {
	s.t.Helper()
	s.Forget()
	if err := os.CopyFS(s.appendOnlyDir(), os.DirFS(dir)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) appendOnlyDir() string { return filepath.Join(s.dir, "appendonlydir") }

// Stop halts the process, which keeps its connections and answers nothing, until
// Continue.
func (s *Server) Stop() { s.signal(syscall.SIGSTOP) }

// Continue undoes Stop.
func (s *Server) Continue() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Await waits for a condition.
func (s *Server) Await(what string, cond func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("waited in vain for %s; the server's log ends with\n%s", what, log[max(0, len(log)-2000):])
		}
	}
}

// Cluster starts a cluster of three masters, each with so many replicas, with more
// of their configuration as arguments, and returns all of them.
func Cluster(t testing.TB, replicas int, args ...string) []*Server {
	t.Helper()
	need(t, "redis-cli")
	var servers []*Server
	create := []string{"--cluster", "create"}
	for range 3 * (1 + replicas) {
		s := Start(t, append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000"}, args...)...)
		servers = append(servers, s)
		create = append(create, s.Addr)
	}
	out, err := exec.Command("redis-cli", append(create, "--cluster-replicas", fmt.Sprint(replicas), "--cluster-yes")...).CombinedOutput()
	if err != nil {
		t.Fatalf("creating a cluster: %v\n%s", err, out)
	}
	for _, s := range servers {
		c := s.Client()
		s.Await("the cluster", func() bool {
			info, err := c.ClusterInfo(context.Background()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprint("cluster_known_nodes:", len(servers), "\r"))
		})
		_ = c.Close()
	}
	return servers
}

// Sentinel starts a sentinel that watches a master by the name "chat", and a
// replica of it, and waits until they know each other.
func Sentinel(t testing.TB, master *Server) (sentinel, replica *Server) {
	t.Helper()
	host, port, _ := net.SplitHostPort(master.Addr)
	replica = Start(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
	sentinel = &Server{t: t, dir: t.TempDir(), Addr: freeAddr(t)}
	file := filepath.Join(sentinel.dir, "sentinel.conf")
	_, own, _ := net.SplitHostPort(sentinel.Addr)
	conf := fmt.Sprintf("bind 127.0.0.1\nport %s\ndir %s\nlogfile %s\nsentinel monitor chat %s %s 1\n"+
		"sentinel down-after-milliseconds chat 1000\nsentinel failover-timeout chat 5000\n",
		own, sentinel.dir, filepath.Join(sentinel.dir, "log"), host, port)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel.args = []string{file, "--sentinel"}
	sentinel.Run()
	t.Cleanup(func() { sentinel.Kill() })
	c := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
	defer c.Close()
	sentinel.Await("the replica to be known", func() bool {
		list, err := c.Replicas(context.Background(), "chat").Result()
		return err == nil && len(list) == 1 && list[0]["master-link-status"] == "ok"
	})
	return sentinel, replica
}
