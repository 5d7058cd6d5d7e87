package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer is a redis-server with its own directory. Strikes that use it never overlap,
// so it has no lock.
type redisServer struct {
	address string
	port    int
	dir     string
	fsync   string // its appendfsync
	log     io.Writer
	program string
	admin   *redis.Client // connects directly, not through a line
	process *process      // nil: it was never started

	flushed logEnd // where the file was when a strike began
}

// logEnd is the size of an append-only file at some time.
type logEnd struct {
	file string
	size int64
}

// newRedis makes a server and does not start it. The caller closes it.
func newRedis(dir, fsync string, log io.Writer) (*redisServer, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &redisServer{
		address: local(port), port: port, dir: dir, fsync: fsync, log: log, program: program,
		admin: redis.NewClient(&redis.Options{Addr: local(port), MaxRetries: -1}),
	}, nil
}

// start runs the server on the data in its directory and returns when it serves.
// Later options override earlier ones.
func (s *redisServer) start(ctx context.Context, options ...string) error {
	args := append([]string{
		"--port", strconv.Itoa(s.port),
		"--bind", "127.0.0.1",
		"--dir", s.dir,
		"--save", "",
		"--appendonly", "yes",
		"--appendfsync", s.fsync,
		"--auto-aof-rewrite-percentage", "0", // the file only grows, so its size is a time
		"--repl-diskless-sync-delay", "0",
	}, options...)
	p, err := start("redis", exec.Command(s.program, args...), s.log)
	if err != nil {
		return err
	}
	if err := untilServing(ctx, p, func() error { return s.admin.Ping(ctx).Err() }); err != nil {
		_ = p.end(syscall.SIGKILL, endWithin)
		return err
	}
	s.process = p
	return nil
}

func (s *redisServer) kill() error { return s.process.end(syscall.SIGKILL, endWithin) }

// close ends the server, whatever state it is in.
func (s *redisServer) close() error {
	var err error
	if s.process != nil && !s.process.ended() {
		_ = s.process.signal(syscall.SIGCONT) // it may be paused
		err = s.process.end(syscall.SIGTERM, endWithin)
	}
	return errors.Join(err, s.admin.Close())
}

func (s *redisServer) logDir() string   { return filepath.Join(s.dir, "appendonlydir") }
func (s *redisServer) olderLog() string { return filepath.Join(s.dir, "older") }
func (s *redisServer) snapshot() string { return filepath.Join(s.dir, "dump.rdb") }

// copyLog copies the append-only file. The last command in the copy may be incomplete;
// Redis drops it.
func (s *redisServer) copyLog(ctx context.Context) error {
	return untilServing(ctx, s.process, func() error { // again when a file was just replaced
		if err := os.RemoveAll(s.olderLog()); err != nil {
			return err
		}
		return os.CopyFS(s.olderLog(), os.DirFS(s.logDir()))
	})
}

// startFromCopy replaces the append-only file with the copy and starts.
func (s *redisServer) startFromCopy(ctx context.Context) error {
	if err := s.wipe(); err != nil {
		return err
	}
	if err := os.Rename(s.olderLog(), s.logDir()); err != nil {
		return err
	}
	return s.start(ctx)
}

// save writes a snapshot of the data.
func (s *redisServer) save(ctx context.Context) error { return s.admin.Save(ctx).Err() }

// startFromSnapshot starts with the snapshot alone, and writes an append-only file from then
// on.
func (s *redisServer) startFromSnapshot(ctx context.Context) error {
	if err := s.wipe(); err != nil {
		return err
	}
	if err := s.start(ctx, "--appendonly", "no"); err != nil {
		return err
	}
	if err := s.admin.ConfigSet(ctx, "appendonly", "yes").Err(); err != nil {
		return err
	}
	return untilServing(ctx, s.process, func() error {
		info, err := s.admin.Info(ctx, "persistence").Result()
		if err != nil {
			return err
		}
		for _, want := range []string{"aof_enabled:1", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"} {
			if !strings.Contains(info, want+"\r\n") {
				return errors.New("the append-only file is not written yet")
			}
		}
		return os.Remove(s.snapshot())
	})
}

// wipe removes the data of a stopped server, but not the copies.
func (s *redisServer) wipe() error { return os.RemoveAll(s.logDir()) }

// noteFlushed records the size of the append-only file. A crash of the machine may lose
// what is written later, unless every write is synchronized to the disk.
func (s *redisServer) noteFlushed(ctx context.Context) error {
	return untilServing(ctx, s.process, func() error {
		files, err := filepath.Glob(filepath.Join(s.logDir(), "*.incr.aof"))
		if err != nil || len(files) != 1 {
			return errors.Join(fmt.Errorf("%s has %d incremental files, not one", s.logDir(), len(files)), err)
		}
		about, err := os.Stat(files[0])
		if err != nil {
			return err
		}
		s.flushed = logEnd{files[0], about.Size()}
		return nil
	})
}

// startAfterCrash starts without the data that was written after noteFlushed.
func (s *redisServer) startAfterCrash(ctx context.Context) error {
	if err := os.Truncate(s.flushed.file, s.flushed.size); err != nil {
		return err
	}
	return s.start(ctx)
}

// replicate makes this server, which was just started, a replica of another one. It returns
// when the replica has all data.
func (s *redisServer) replicate(ctx context.Context, of *line) error {
	host, port, _ := strings.Cut(of.address, ":")
	if err := s.admin.ReplicaOf(ctx, host, port).Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return untilServing(ctx, s.process, func() error {
		info, err := s.admin.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up\r\n") {
			err = errors.New("the replica is not synchronized yet")
		}
		return err
	})
}

// promote makes a replica the master, with the data that it has.
func (s *redisServer) promote(ctx context.Context) error {
	return s.admin.ReplicaOf(ctx, "NO", "ONE").Err()
}
