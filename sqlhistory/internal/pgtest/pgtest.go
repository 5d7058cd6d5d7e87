// Package pgtest starts real PostgreSQL servers for tests.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience is how long a server may take to do as it is told.
const patience = 60 * time.Second

// Server is a PostgreSQL server with a data directory of its own, on a port of the
// loopback interface. Its methods are for one goroutine at a time, but for Database
// and DSN.
type Server struct {
	port     int
	bin      string   // where the server's programs are
	dir      string   // what is the server's
	settings []string // "name=value"

	as        *syscall.Credential // nil: who runs the tests
	process   *os.Process         // nil: none runs
	ended     chan error          // gets what its Wait says
	log       *os.File
	databases atomic.Int64
}

// Start makes a server with these settings ("name=value") and waits until it answers.
// fsync is on, as are all defaults that bear on what is kept.
func Start(settings ...string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, settings: settings}
	if s.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		return nil, err
	}
	if err := s.create(); err != nil {
		_ = os.RemoveAll(s.dir) // the other error tells more
		return nil, fmt.Errorf("pgtest: making a server: %w", err)
	}
	if err := s.Restart(); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// programs finds the directory of initdb and postgres: in the PATH, or where Debian
// has the newest of them.
func programs() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", err
		}
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return "", errors.New("pgtest: there is no PostgreSQL server (Debian's package postgresql)")
	}
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// create makes the data directory. The server does not run as root, so it belongs to
// the package's user then.
func (s *Server) create() error {
	if os.Geteuid() == 0 {
		who, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(who.Uid)
		gid, _ := strconv.Atoi(who.Gid)
		s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return err
	}
	out, err := s.Command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	s.log, err = os.Create(filepath.Join(s.dir, "log"))
	return err
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Command is one of the server's programs, run as the server is.
func (s *Server) Command(name string, args ...string) *exec.Cmd {
	path := filepath.Join(s.bin, name)
	if _, err := os.Stat(path); err != nil {
		path = name // some are installed apart: from the PATH
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return cmd
}

// Restart starts the server where it left off, and waits until it takes what is
// written.
func (s *Server) Restart() error { return s.restart(s.answers) }

func (s *Server) restart(ready func(context.Context) error) error {
	deadline := time.Now().Add(patience)
	for {
		err := s.run(deadline, ready)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		// After a kill its children may still be there for a moment.
		<-time.After(50 * time.Millisecond)
	}
}

func (s *Server) run(deadline time.Time, ready func(context.Context) error) error {
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir}
	for _, setting := range append([]string{"listen_addresses=127.0.0.1", "max_connections=200"}, s.settings...) {
		args = append(args, "-c", setting)
	}
	cmd := s.Command("postgres", args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("pgtest: starting: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.process, s.ended = cmd.Process, ended
	for {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		err := ready(ctx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			s.process = nil
			return fmt.Errorf("pgtest: the server ended: %v\n%s", err, s.tail())
		case <-time.After(20 * time.Millisecond):
			if time.Now().After(deadline) {
				_ = cmd.Process.Kill()
				<-ended
				s.process = nil
				return fmt.Errorf("pgtest: the server does not answer: %w\n%s", err, s.tail())
			}
		}
	}
}

// answers returns no error when the server takes what is written.
func (s *Server) answers(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var recovering bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering); err != nil {
		return err
	}
	if recovering {
		return errors.New("pgtest: the server is recovering")
	}
	return nil
}

// tail is the end of the server's log.
func (s *Server) tail() []byte {
	text, _ := os.ReadFile(s.log.Name())
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-20):], nil)
}

// Kill ends the server as kill -9 does: what it had not written is lost.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Shutdown ends the server, cutting its connections.
func (s *Server) Shutdown() { s.end(syscall.SIGINT) }

func (s *Server) end(signal syscall.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Signal(signal)
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.process.Kill()
		<-s.ended
	}
	s.process = nil
}

// Crash ends the server and its processes at once: what is in its memory alone is
// lost.
func (s *Server) Crash() { s.end(syscall.SIGQUIT) }

// CrashBackend kills one of the server's processes, as the kernel does when memory is
// short. The server cuts all connections and recovers, without being started again.
func (s *Server) CrashBackend() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	other, err := pgx.Connect(ctx, s.DSN("postgres")) // ends when the server has noticed
	if err != nil {
		return err
	}
	defer other.Close(ctx)
	if err := syscall.Kill(int(conn.PgConn().PID()), syscall.SIGKILL); err != nil {
		return fmt.Errorf("pgtest: killing a process of the server: %w", err)
	}
	for other.Ping(ctx) == nil {
		<-time.After(10 * time.Millisecond)
	}
	for {
		err := s.answers(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (s *Server) copy() string { return filepath.Join(s.dir, "copy") }

// Backup copies the running server's data as it is now, for Restore and TakeOver.
func (s *Server) Backup() error {
	if err := os.RemoveAll(s.copy()); err != nil {
		return err
	}
	out, err := s.Command("pg_basebackup", "-D", s.copy(), "-d", s.DSN("postgres"), "-c", "fast", "-X", "stream", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	return nil
}

// CopyStopped is Backup of a server that has ended: every file as it is.
func (s *Server) CopyStopped() error {
	if err := os.RemoveAll(s.copy()); err != nil {
		return err
	}
	out, err := s.Command("cp", "-a", s.data(), s.copy()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copying: %w\n%s", err, out)
	}
	return nil
}

// Restore crashes the server and starts it, on the same timeline, with the data of the
// copy.
func (s *Server) Restore() error {
	if err := s.replace(); err != nil {
		return err
	}
	return s.Restart()
}

// replace crashes the server and puts the copy in the place of its data.
func (s *Server) replace() error {
	s.Crash()
	if err := os.RemoveAll(s.data()); err != nil {
		return err
	}
	return os.Rename(s.copy(), s.data())
}

// TakeOver crashes the server and starts the copy as a standby, which is all that the
// other one had sent. It answers, and follows nobody, until PromoteStandby.
func (s *Server) TakeOver() error {
	if err := s.replace(); err != nil {
		return err
	}
	if out, err := s.Command("touch", filepath.Join(s.data(), "standby.signal")).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return s.restart(func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.DSN("postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

// PromoteStandby has a standby take what is written from now on, without a restart.
func (s *Server) PromoteStandby() error {
	out, err := s.Command("pg_ctl", "promote", "-w", "-D", s.data()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_ctl promote: %w\n%s", err, out)
	}
	return nil
}

// Stop ends the server, which need not tidy up, and removes what is its.
func (s *Server) Stop() {
	s.end(syscall.SIGQUIT)
	if s.log != nil {
		_ = s.log.Close() // the server has written it
	}
	_ = os.RemoveAll(s.dir) // temporary
}

// Promote ends the server and starts it on a new timeline, as a standby that takes
// over does.
func (s *Server) Promote() error {
	s.Shutdown()
	settings := filepath.Join(s.data(), "postgresql.auto.conf")
	if err := os.WriteFile(settings, []byte("restore_command = 'false'\n"), 0o600); err != nil {
		return err
	}
	signal := filepath.Join(s.data(), "recovery.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return err
	}
	if s.as != nil {
		if err := errors.Join(os.Chown(settings, int(s.as.Uid), int(s.as.Gid)), os.Chown(signal, int(s.as.Uid), int(s.as.Gid))); err != nil {
			return err
		}
	}
	return s.Restart()
}

// DSN is how to connect to a database.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=%s sslmode=disable", s.port, database)
}

// Database makes an empty database and returns its DSN.
func (s *Server) Database(ctx context.Context) (dsn string, err error) {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("pgtest: making a database: %w", err)
	}
	return s.DSN(name), nil
}
