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
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// endWithin is how long a server that was told to end may take.
const endWithin = 20 * time.Second

// server is a Redis or a PostgreSQL that can be ended and started again with what
// it had.
type server struct {
	address string
	log     io.Writer
	launch  func(ctx context.Context) (*process, error) // returns when it serves
	polite  syscall.Signal                              // ends it in good order
	process *process
}

func (s *server) start(ctx context.Context) (err error) {
	s.process, err = s.launch(ctx)
	return err
}

// stop ends it in good order.
func (s *server) stop() error { return s.process.end(s.polite, endWithin) }

// startRedis runs a redis-server. With fsync "always" it forgets nothing that it said
// it had: each write is in its file before it is answered.
func startRedis(ctx context.Context, dir, fsync string, log io.Writer) (*server, *redis.Client, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	admin := redis.NewClient(&redis.Options{Addr: local(port), MaxRetries: -1})
	s := &server{address: local(port), log: log, polite: syscall.SIGTERM}
	s.launch = func(ctx context.Context) (*process, error) {
		p, err := start("redis", exec.Command(program,
			"--port", strconv.Itoa(port),
			"--bind", "127.0.0.1",
			"--dir", dir,
			"--save", "",
			"--appendonly", "yes",
			"--appendfsync", fsync,
		), log)
		if err != nil {
			return nil, err
		}
		if err := untilServing(ctx, p, func() error { return admin.Ping(ctx).Err() }); err != nil {
			_ = p.end(syscall.SIGKILL, endWithin)
			return nil, err
		}
		return p, nil
	}
	if err := s.start(ctx); err != nil {
		admin.Close()
		return nil, nil, err
	}
	return s, admin, nil
}

// untilServing asks a process until it answers.
func untilServing(ctx context.Context, p *process, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, p.lastLine())
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve: %w", p.name, err)
		}
	}
}

var postgresServes = regexp.MustCompile(`database system is ready to accept connections`)

// startPostgres makes a database and runs it, as the user postgres when this
// process is root's, which PostgreSQL refuses to be.
func startPostgres(ctx context.Context, dir string, log io.Writer) (*server, error) {
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, err
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	command := func(name string, args ...string) (*exec.Cmd, error) {
		program, err := postgresProgram(name)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		return cmd, nil
	}
	initdb, err := command("initdb", "-D", dir, "-U", "chat", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	if err != nil {
		return nil, err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	s := &server{address: local(port), log: log, polite: syscall.SIGINT}
	s.launch = func(ctx context.Context) (*process, error) {
		cmd, err := command("postgres", "-D", dir, "-p", strconv.Itoa(port), "-k", dir,
			"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200")
		if err != nil {
			return nil, err
		}
		p, err := start("postgres", cmd, log)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
		defer cancel()
		if _, err := p.await(ctx, postgresServes); err != nil {
			_ = p.end(syscall.SIGQUIT, endWithin)
			return nil, err
		}
		return p, nil
	}
	return s, s.start(ctx)
}

// unprivileged is whom a process of root's runs PostgreSQL as; nil: itself.
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

// postgresProgram finds one of PostgreSQL's programs, which Debian keeps off the
// path.
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
