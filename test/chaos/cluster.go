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

	"github.com/reto10/chat"
)

// dialers bounds the handshakes at the same time.
const dialers = 64

// shortLife is how long some tokens are valid.
const shortLife = 5 * time.Second

// cluster is the nodes and their backends.
type cluster struct {
	config Config
	report *report
	ledger *ledger
	dir    string
	logs   []io.Closer

	lines    lines
	nodes    []*node
	stores   disturbance // of the servers below, or of a node's line to one
	doubtful windows     // when what Redis knows of presence may have gone back in time

	// Strikes replace these. Two strikes on the same server never overlap.
	redis           *redisServer    // nil: none
	redisReplica    *redisServer    // nil: none now
	replication     *line           // from a replica or a standby
	postgres        *postgresServer // nil: none
	postgresStandby *postgresServer // nil: none now
	servers         int             // that were made so far
	lossOver        func()          // says that a strike loses nothing any more

	tokens   signer
	expires  time.Time // when tokens end that do not end soon
	http     *http.Client
	dialling chan struct{}
	buffers  sync.Pool // of the clients' frames

	asked      atomic.Uint32 // requests for pages
	unreadable atomic.Bool   // a page was not answered in time

	turbulent atomic.Bool // things break, and tokens end
	underWay  sync.Map    // by what a strike is about, a chan struct{} that it fills

	groups []string // channels to be in
	users  []string // who have a channel of their own
}

// newCluster builds the program and starts everything. The caller ends the cluster, also
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
	c.ledger.forgetful = config.Forgetful
	if c.dir, err = os.MkdirTemp("", "chaos"); err != nil {
		return c, err
	}
	if err := os.Chmod(c.dir, 0o755); err != nil { // PostgreSQL's user goes through it
		return c, err
	}
	r.say("building the nodes' program")
	program, err := build(ctx, c.dir, config)
	if err != nil {
		return c, err
	}
	if config.uses(Redis) {
		if c.redis, err = c.newRedis(); err != nil {
			return c, err
		}
		if err := c.redis.start(ctx); err != nil {
			return c, err
		}
	}
	if config.uses(Postgres) {
		if c.postgres, err = c.newPostgres(); err != nil {
			return c, err
		}
		if err := c.postgres.create(ctx); err != nil {
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
		n.offset = config.clockOf(i)
		c.nodes = append(c.nodes, n)
		if err := c.startNode(ctx, n); err != nil {
			return c, err
		}
	}
	return c, nil
}

// credentials writes the files that all nodes share. The clients' tokens are signed with the
// same secret, because thousands of logins would measure bcrypt.
func (c *cluster) credentials() (secretFile, usersFile string, err error) {
	random := make([]byte, chat.MinSecret)
	_, _ = rand.Read(random) // never fails
	secret := []byte(hex.EncodeToString(random))
	c.tokens = signer(secret)
	// Long enough for a whole run, with its start and end, by the clock of any node.
	c.expires = time.Now().Add(c.config.Length + time.Hour + c.config.Skew)
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
		"-history-count", "100000", // nothing is dropped that a run publishes
		"-connections-per-address", "0", // all clients come from this machine
	}
	if c.config.Skew > 0 {
		// A node that used its own clock for the age of messages would drop them all.
		n.args = append(n.args, "-history-age", (c.config.Skew * 3 / 4).String())
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
		if !c.config.Lossy {
			n.args = append(n.args, "-redis-durable")
		}
	}
	switch c.config.History {
	case Redis:
		n.args = append(n.args, "-history", "redis")
	case Postgres:
		n.args = append(n.args, "-history", "postgres://"+pgUser+"@"+n.sql.address+"/"+pgDatabase+"?sslmode=disable")
	}
	return n, nil
}

// startNode starts a node as a supervisor does: again, if it reports that a backend cannot
// be reached.
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

// newRedis makes a Redis with its own directory. If the faults may not lose data, Redis
// writes each command to the disk before it answers.
func (c *cluster) newRedis() (*redisServer, error) {
	fsync := c.config.fsync
	if c.config.Lossy {
		fsync = "everysec"
	}
	c.servers++
	name := fmt.Sprintf("redis-%d", c.servers)
	return newRedis(filepath.Join(c.dir, name), fsync, c.log(name))
}

func (c *cluster) newPostgres() (*postgresServer, error) {
	c.servers++
	name := fmt.Sprintf("postgres-%d", c.servers)
	return newPostgres(filepath.Join(c.dir, name), c.log(name))
}

// killClients makes Redis close its connections of a kind.
func (c *cluster) killClients(ctx context.Context, kind string) error {
	n, err := c.redis.admin.ClientKillByFilter(ctx, "TYPE", kind, "SKIPME", "yes").Result()
	if err != nil {
		return fmt.Errorf("killing Redis's %s clients: %w", kind, err)
	}
	c.report.add("connections that Redis was told to close", int(n))
	return nil
}

// log opens the file for the output of a process.
func (c *cluster) log(name string) io.Writer {
	f, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		return io.Discard
	}
	c.logs = append(c.logs, f)
	return f
}

// end ends all processes, whatever state they are in.
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
	if c.replication != nil {
		c.replication.cut()
	}
	for _, s := range []*redisServer{c.redis, c.redisReplica} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	for _, s := range []*postgresServer{c.postgres, c.postgresStandby} {
		if s != nil {
			errs = append(errs, s.close())
		}
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

// removeAllButLogs removes the data and keeps the logs.
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
