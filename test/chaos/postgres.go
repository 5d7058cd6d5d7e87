package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// pgOwner is the superuser. The nodes connect as pgUser, whose permissions can be revoked.
	pgOwner, pgUser, pgDatabase = "chat", "node", "chat"
)

// postgresServer is a PostgreSQL with its own directory. Strikes that use it never overlap,
// so it has no lock.
type postgresServer struct {
	address string
	port    int
	dir     string
	log     io.Writer
	as      *syscall.Credential // nil: this process's own
	process *process            // nil: it was never started
}

// newPostgres makes a server without data and does not start it. PostgreSQL refuses to run
// as root, so in a process of root it runs as the user postgres.
func newPostgres(dir string, log io.Writer) (*postgresServer, error) {
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &postgresServer{address: local(port), port: port, dir: dir, log: log, as: as}
	return s, s.makeDir(dir)
}

func (s *postgresServer) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if s.as != nil {
		return os.Chown(dir, int(s.as.Uid), int(s.as.Gid))
	}
	return nil
}

func (s *postgresServer) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	program, err := postgresProgram(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return cmd, nil
}

// run runs one of PostgreSQL's programs to its end.
func (s *postgresServer) run(ctx context.Context, name string, args ...string) error {
	cmd, err := s.command(ctx, name, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// create initializes the data and starts the server.
func (s *postgresServer) create(ctx context.Context) error {
	if err := s.run(ctx, "initdb", "-D", s.dir, "-U", pgOwner, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	return s.exec(ctx, "postgres", "CREATE ROLE "+pgUser+" LOGIN", "CREATE DATABASE "+pgDatabase+" OWNER "+pgUser)
}

// exec runs statements as the superuser, each in its own transaction.
func (s *postgresServer) exec(ctx context.Context, database string, statements ...string) error {
	args := []string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-U", pgOwner, "-d", database}
	for _, statement := range statements {
		args = append(args, "-c", statement)
	}
	return s.run(ctx, "psql", args...)
}

var (
	postgresServes  = regexp.MustCompile(`database system is ready to accept connections`)
	postgresStandby = regexp.MustCompile(`started streaming WAL from primary`)
)

// start runs the server on the data in its directory and returns when it serves.
func (s *postgresServer) start(ctx context.Context) error { return s.startUntil(ctx, postgresServes) }

func (s *postgresServer) startUntil(ctx context.Context, serves *regexp.Regexp) error {
	// It does not end with ctx, because stop shuts it down in order.
	cmd, err := s.command(context.WithoutCancel(ctx), "postgres", "-D", s.dir, "-p", strconv.Itoa(s.port), "-k", s.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200")
	if err != nil {
		return err
	}
	p, err := start("postgres", cmd, s.log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if _, err := p.await(ctx, serves); err != nil {
		_ = p.end(syscall.SIGQUIT, endWithin)
		return err
	}
	s.process = p
	return nil
}

// stop shuts down the server in order.
func (s *postgresServer) stop() error { return s.process.end(syscall.SIGINT, endWithin) }

// crash kills the server and its backends. Data that is only in memory is lost.
func (s *postgresServer) crash() error { return s.process.end(syscall.SIGQUIT, endWithin) }

// close ends the server, whatever state it is in.
func (s *postgresServer) close() error {
	if s.process == nil || s.process.ended() {
		return nil
	}
	_ = s.process.signal(syscall.SIGCONT) // it may be paused
	return s.stop()
}

func (s *postgresServer) copy() string { return s.dir + "-older" }

// backup copies the data directory of a running server.
func (s *postgresServer) backup(ctx context.Context) error {
	return s.backupTo(ctx, s.copy(), s.address)
}

// backupTo copies the data of the server at an address. Further options make the copy one
// for a standby.
func (s *postgresServer) backupTo(ctx context.Context, dir, address string, options ...string) error {
	if err := s.makeDir(dir); err != nil {
		return err
	}
	host, port, _ := strings.Cut(address, ":")
	return s.run(ctx, "pg_basebackup", append([]string{
		"-h", host, "-p", port, "-U", pgOwner, "-D", dir, "-X", "stream", "-c", "fast", "--no-sync"}, options...)...)
}

// startFromBackup replaces the data directory with the copy and starts.
func (s *postgresServer) startFromBackup(ctx context.Context) error {
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := os.Rename(s.copy(), s.dir); err != nil {
		return err
	}
	return s.start(ctx)
}

// follow makes this server, which has no data yet, a standby of the server behind a line.
// It returns when the standby streams.
func (s *postgresServer) follow(ctx context.Context, primary *line) error {
	if err := s.backupTo(ctx, s.dir, primary.address, "-R"); err != nil {
		return err
	}
	return s.startUntil(ctx, postgresStandby)
}

// promote makes a standby the primary, with the data that it has.
func (s *postgresServer) promote(ctx context.Context) error {
	return s.exec(ctx, "postgres", "SELECT pg_promote()")
}

// relax lets PostgreSQL acknowledge commits before they are on the disk, or stops that. The
// data is then written late, so that a crash loses something.
func (s *postgresServer) relax(ctx context.Context, on bool) error {
	statements := []string{"ALTER SYSTEM RESET synchronous_commit", "ALTER SYSTEM RESET wal_writer_delay"}
	if on {
		statements = []string{"ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM SET wal_writer_delay = '5s'"}
	}
	return s.exec(ctx, "postgres", append(statements, "SELECT pg_reload_conf()")...)
}

// permit grants the nodes a permission on their tables, or revokes it.
func (s *postgresServer) permit(ctx context.Context, permission string, on bool) error {
	statement := "REVOKE " + permission + " ON ALL TABLES IN SCHEMA public FROM " + pgUser
	if on {
		statement = "GRANT " + permission + " ON ALL TABLES IN SCHEMA public TO " + pgUser
	}
	return s.exec(ctx, pgDatabase, statement)
}

// unprivileged is the user as whom a process of root runs PostgreSQL; nil: the same user.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// postgresProgram finds a program of PostgreSQL. Debian does not put them in PATH.
func postgresProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", errors.Join(fmt.Errorf("%s: %w", name, exec.ErrNotFound), err)
	}
	return found[len(found)-1], nil
}
