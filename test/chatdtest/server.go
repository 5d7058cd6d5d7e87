package chatdtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Server is a process of another project that the program under test needs.
type Server struct {
	Addr string // 127.0.0.1:port

	t     testing.TB
	make  func() *exec.Cmd
	ready func(addr string) error
	stop  syscall.Signal // which ends it in good order

	cmd  *exec.Cmd
	done chan struct{}
}

// start runs the server and returns when it is ready; it ends with the test.
func (s *Server) start() *Server {
	s.t.Helper()
	s.Begin()
	s.t.Cleanup(s.End)
	return s
}

// Begin starts or restarts the server and returns when it is ready.
func (s *Server) Begin() {
	s.t.Helper()
	s.cmd, s.done = s.make(), make(chan struct{})
	log, err := os.CreateTemp(s.t.TempDir(), "log")
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		defer func() { _ = log.Close() }() // the process has written it
		_ = s.cmd.Wait()                   // ended by End
	}()
	deadline := time.Now().Add(Patience)
	for {
		err := s.ready(s.Addr)
		if err == nil {
			return
		}
		select {
		case <-s.done:
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		said, _ := os.ReadFile(log.Name())
		s.t.Fatalf("%s is not ready: %v\n%s", s.cmd.Path, err, said)
	}
}

// Signal sends the server a signal, such as SIGSTOP.
func (s *Server) Signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Ask sends a command of plain words to a Redis or a Sentinel, and checks the beginning of
// the answer.
func (s *Server) Ask(command, want string) error {
	return ask(s.Addr, "AUTH "+Password+"\r\n"+command+"\r\n", "+OK\r\n"+want)
}

// End ends the server, if it has not ended, and waits for its end.
func (s *Server) End() {
	_ = s.cmd.Process.Signal(syscall.SIGCONT) // it may have been stopped, or have ended
	_ = s.cmd.Process.Signal(s.stop)
	select {
	case <-s.done:
	case <-time.After(Patience):
		s.t.Errorf("%s does not end", s.cmd.Path)
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// Password is the password of the Redis and the PostgreSQL that tests start.
const Password = "hunter2"

// StartRedis runs an empty redis-server. It keeps its data in a file and reads it when it
// restarts. args are further configuration.
func StartRedis(t testing.TB, args ...string) *Server {
	t.Helper()
	path, dir, addr := Needs(t, "redis-server"), t.TempDir(), FreeAddr(t)
	args = append([]string{
		"--bind", "127.0.0.1", "--port", port(addr), "--dir", dir,
		"--requirepass", Password, "--appendonly", "yes", "--save", "",
	}, args...)
	return (&Server{
		t: t, Addr: addr, stop: syscall.SIGTERM,
		make:  func() *exec.Cmd { return exec.Command(path, args...) },
		ready: func(addr string) error { return ask(addr, "AUTH "+Password+"\r\nPING\r\n", "+OK\r\n+PONG") },
	}).start()
}

// RedisURL returns the URL of a server of StartRedis.
func (s *Server) RedisURL() string { return "redis://:" + Password + "@" + s.Addr }

// StartSentinel runs a Redis Sentinel that watches a server of StartRedis as
// "chat".
func StartSentinel(t testing.TB, redis *Server) *Server {
	t.Helper()
	path, addr := Needs(t, "redis-server"), FreeAddr(t)
	conf := WriteFile(t, "sentinel.conf", "bind 127.0.0.1\nport "+port(addr)+"\n"+
		"sentinel monitor chat 127.0.0.1 "+port(redis.Addr)+" 1\n"+
		"sentinel auth-pass chat "+Password+"\n")
	return (&Server{
		t: t, Addr: addr, stop: syscall.SIGTERM,
		make:  func() *exec.Cmd { return exec.Command(path, conf, "--sentinel") },
		ready: func(addr string) error { return ask(addr, "PING\r\n", "+PONG") },
	}).start()
}

// StartPostgres runs a PostgreSQL with an empty database chat of a user chat.
func StartPostgres(t testing.TB) *Server {
	t.Helper()
	bin := postgresBin(t)
	dir, err := os.MkdirTemp("", "chat-postgres-") // where another user may look, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // as far as another user lets it
	as := serverUser(t, dir)
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
		return cmd
	}
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(Password+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-U", "chat", "-A", "scram-sha-256", "--pwfile", password, "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	addr := FreeAddr(t)
	return (&Server{
		t: t, Addr: addr, stop: syscall.SIGINT,
		make: func() *exec.Cmd {
			return command("postgres", "-D", data, "-p", port(addr), "-k", dir, "-c", "listen_addresses=127.0.0.1")
		},
		ready: func(addr string) error {
			out, err := command("pg_isready", "-q", "-h", "127.0.0.1", "-p", port(addr)).CombinedOutput()
			if err != nil {
				return errors.New("pg_isready: " + err.Error() + string(out))
			}
			return nil
		},
	}).start()
}

// PostgresURL returns the URL of a server of StartPostgres.
func (s *Server) PostgresURL() string {
	return "postgres://chat:" + Password + "@" + s.Addr + "/postgres?sslmode=disable"
}

// postgresBin finds PostgreSQL's programs, which Debian does not put into PATH.
func postgresBin(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	return filepath.Dir(Needs(t, "initdb"))
}

// serverUser returns the user for PostgreSQL, which refuses to run as root, and makes it the
// owner of dir. nil means the user of the tests.
func serverUser(t testing.TB, dir string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// FreeAddr returns an address of this machine on which no process listens.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// ask sends lines and reads as many bytes as it expects.
func ask(addr, question, want string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // a TCP connection has one
	if _, err := io.WriteString(conn, question); err != nil {
		return err
	}
	got := make([]byte, len(want))
	n, err := io.ReadFull(conn, got)
	if string(got[:n]) != want {
		return fmt.Errorf("answers %q, not %q (%v)", got[:n], want, err)
	}
	return nil
}
