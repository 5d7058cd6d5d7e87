package chaos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// dialers is how many handshakes are under way at once.
const dialers = 64

// shortLife is how long some tokens hold.
const shortLife = 5 * time.Second

// cluster is the nodes and what they stand on.
type cluster struct {
	config Config
	report *report
	ledger *ledger
	dir    string
	logs   []io.Closer

	lines    lines
	nodes    []*node
	redis    *server       // nil: none
	admin    *redis.Client // of that Redis, not by way of a line
	postgres *server       // nil: none
	stores   disturbance   // of these, or of a node's line to one

	tokens    *chat.HS256
	shortLife *chat.HS256 // whose tokens end soon
	http      *http.Client
	dialling  chan struct{}
	buffers   sync.Pool // of the clients' frames

	turbulent atomic.Bool // things break, and tokens end

	groups []string // channels to be in
	users  []string // who have a channel of their own
}

// newCluster makes the program and starts everything. The caller ends it, also
// after an error.
func newCluster(ctx context.Context, config Config, r *report) (c *cluster, err error) {
	c = &cluster{
		config:   config,
		report:   r,
		ledger:   newLedger(r),
		lines:    newLines(),
		http:     &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		dialling: make(chan struct{}, dialers),
	}
	if c.dir, err = os.MkdirTemp("", "chaos"); err != nil {
		return c, err
	}
	if err := os.Chmod(c.dir, 0o755); err != nil { // PostgreSQL's user goes through it
		return c, err
	}
	r.say("building the nodes' program")
	program, err := build(ctx, c.dir, config.plain(), config.Race)
	if err != nil {
		return c, err
	}
	if config.uses(Redis) {
		if c.redis, c.admin, err = startRedis(ctx, filepath.Join(c.dir, "redis"), config.fsync, c.log("redis")); err != nil {
			return c, err
		}
	}
	if config.uses(Postgres) {
		if c.postgres, err = startPostgres(ctx, filepath.Join(c.dir, "postgres"), c.log("postgres")); err != nil {
			return c, err
		}
	}
	secret, users, err := c.credentials()
	if err != nil {
		return c, err
	}
	for i := range config.Nodes {
		n, err := c.newNode(fmt.Sprintf("node-%d", i+1), program, secret, users)
		if err != nil {
			return c, err
		}
		c.nodes = append(c.nodes, n)
		if err := c.startNode(ctx, n); err != nil {
			return c, err
		}
	}
	return c, nil
}

// credentials writes the files that all nodes share, and makes who signs tokens
// with the same secret: thousands of logins would measure bcrypt.
func (c *cluster) credentials() (secretFile, usersFile string, err error) {
	random := make([]byte, chat.MinSecret)
	_, _ = rand.Read(random) // never fails
	secret := []byte(hex.EncodeToString(random))
	// A whole run, what comes before and after it included.
	if c.tokens, err = chat.NewHS256(secret, chat.WithTokenTTL(c.config.Length+time.Hour)); err != nil {
		return "", "", err
	}
	if c.shortLife, err = chat.NewHS256(secret, chat.WithTokenTTL(shortLife)); err != nil {
		return "", "", err
	}
	hash, err := chat.HashPassword(hex.EncodeToString(random[:16]))
	if err != nil {
		return "", "", err
	}
	secretFile, usersFile = filepath.Join(c.dir, "secret"), filepath.Join(c.dir, "users")
	if err := os.WriteFile(secretFile, secret, 0o600); err != nil {
		return "", "", err
	}
	return secretFile, usersFile, os.WriteFile(usersFile, []byte("admin:"+string(hash)+":admin\n"), 0o600)
}

func (c *cluster) newNode(name, program, secret, users string) (*node, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	debug, err := freePort()
	if err != nil {
		return nil, err
	}
	n := &node{
		name:    name,
		address: local(port),
		debug:   local(debug),
		program: program,
		log:     c.log(name),
		report:  c.report,
		stores:  &c.stores,
	}
	n.args = []string{
		"-addr", n.address, "-debug-addr", n.debug, "-plaintext",
		"-secret-file", secret, "-users", users, "-drain", drain.String(),
	}
	if n.front, err = c.lines.to(name+"-front", n.address); err != nil {
		return nil, err
	}
	if c.config.uses(Redis) {
		if n.redis, err = c.lines.to(name+"-redis", c.redis.address); err != nil {
			return nil, err
		}
	}
	if c.config.uses(Postgres) {
		if n.sql, err = c.lines.to(name+"-postgres", c.postgres.address); err != nil {
			return nil, err
		}
	}
	if c.config.Registry == Redis {
		n.args = append(n.args, "-registry", "redis://"+n.redis.address, "-lease", c.config.Lease.String())
	}
	switch c.config.History {
	case Redis:
		n.args = append(n.args, "-history", "redis")
	case Postgres:
		n.args = append(n.args, "-history", "postgres://chat@"+n.sql.address+"/postgres?sslmode=disable")
	}
	return n, nil
}

// startNode starts a node as a supervisor does: again, when it says that what it
// stands on cannot be reached.
func (c *cluster) startNode(ctx context.Context, n *node) error {
	const tries, pause = 60, 500 * time.Millisecond
	for try := 1; ; try++ {
		err := n.start(ctx)
		if err == nil || try == tries || ctx.Err() != nil {
			return err
		}
		c.report.tally("starts of a node that failed")
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// killClients has Redis end its connections of a kind.
func (c *cluster) killClients(ctx context.Context, kind string) error {
	n, err := c.admin.ClientKillByFilter(ctx, "TYPE", kind, "SKIPME", "yes").Result()
	if err != nil {
		return fmt.Errorf("killing Redis's %s clients: %w", kind, err)
	}
	c.report.add("connections that Redis was told to end", int(n))
	return nil
}

// log is where a process's output goes.
func (c *cluster) log(name string) io.Writer {
	f, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		return io.Discard
	}
	c.logs = append(c.logs, f)
	return f
}

// end ends all that is left, whatever state it is in.
func (c *cluster) end(keep bool) error {
	var errs []error
	c.http.CloseIdleConnections()
	for _, n := range c.nodes {
		if n.process != nil {
			errs = append(errs, n.process.end(syscall.SIGKILL, endWithin))
		}
		for _, l := range []*line{n.front, n.redis, n.sql} {
			if l != nil {
				l.cut()
			}
		}
	}
	for _, s := range []*server{c.redis, c.postgres} {
		if s != nil && s.process != nil && !s.process.ended() {
			_ = s.process.signal(syscall.SIGCONT) // it may be paused
			errs = append(errs, s.stop())
		}
	}
	if c.admin != nil {
		errs = append(errs, c.admin.Close())
	}
	for _, l := range c.logs {
		errs = append(errs, l.Close())
	}
	if keep {
		c.removeAllButLogs()
	} else {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// removeAllButLogs leaves what somebody wants to read.
func (c *cluster) removeAllButLogs() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".log") {
			_ = os.RemoveAll(filepath.Join(c.dir, e.Name()))
		}
	}
}
