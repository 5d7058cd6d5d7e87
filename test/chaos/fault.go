package chaos

import (
	"context"
	"slices"
	"syscall"
	"time"
)

// aftermath is how long sockets may still end because of a fault that is over.
const aftermath = 3 * time.Second

// fault is something that breaks. It lasts between least and most seconds; 0 is a moment.
type fault struct {
	name     string
	about    string // two faults about the same are never under way at once
	also     string // something else that it is about, or ""
	applies  func(Config) bool
	loses    func(Config) bool // what was acknowledged may be lost; nil: never
	maybe    bool              // and need not be
	doubts   bool              // what Redis knows of presence may be lost
	least    time.Duration
	most     time.Duration
	recovery time.Duration // before the next about the same
	atNode   bool

	// begin breaks something and mend undoes it. Both return soon. n is nil unless the fault is
	// atNode.
	begin func(ctx context.Context, c *cluster, n *node) error
	mend  func(ctx context.Context, c *cluster, n *node) error
}

const (
	ms  = time.Millisecond
	sec = time.Second
)

// faults are all faults. Those that lose data are in faults_redis.go and faults_postgres.go.
var faults = slices.Concat(outages, redisFaults, postgresFaults)

// outages lose no acknowledged message, except with a Redis that is not durable: its nodes
// cannot know what a new run of Redis has lost.
var outages = []fault{
	{
		name: "redis-killed", about: "redis", applies: onRedis, least: 200 * ms, most: 3 * sec, recovery: sec,
		loses: redisLoses,
		begin: func(_ context.Context, c *cluster, _ *node) error { return c.redis.kill() },
		mend:  func(ctx context.Context, c *cluster, _ *node) error { return c.redis.start(ctx) },
	},
	{
		name: "redis-paused", about: "redis", applies: onRedis, least: 5 * sec, most: 5 * sec, recovery: sec,
		begin: func(_ context.Context, c *cluster, _ *node) error { return c.redis.process.signal(syscall.SIGSTOP) },
		mend:  func(_ context.Context, c *cluster, _ *node) error { return c.redis.process.signal(syscall.SIGCONT) },
	},
	{
		name: "redis-kills-pubsub", about: "redis", applies: onRedis, recovery: sec,
		begin: func(ctx context.Context, c *cluster, _ *node) error { return c.killClients(ctx, "pubsub") },
		mend:  nothing,
	},
	{
		name: "redis-kills-clients", about: "redis", applies: onRedis, recovery: sec,
		begin: func(ctx context.Context, c *cluster, _ *node) error { return c.killClients(ctx, "normal") },
		mend:  nothing,
	},
	{
		name: "node-killed", about: "node", applies: always, least: 100 * ms, most: 4 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return disturb(&n.disturbance, n.kill) },
		mend:  restart,
	},
	{
		name: "node-drained", about: "node", applies: always, least: 100 * ms, most: 3 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return disturb(&n.disturbance, n.drainAway) },
		mend:  restart,
	},
	{
		name: "node-paused", about: "node", applies: always, least: 2 * sec, most: 5 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return n.process.signal(syscall.SIGSTOP) },
		mend:  func(_ context.Context, _ *cluster, n *node) error { return n.process.signal(syscall.SIGCONT) },
	},
	{
		name: "node-loses-redis", about: "node-redis", applies: onRedis, least: 500 * ms, most: 4 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { n.redis.cut(); return nil },
		mend:  func(_ context.Context, _ *cluster, n *node) error { return n.redis.mend() },
	},
	{
		name: "node-redis-blackholed", about: "node-redis", applies: onRedis, least: 2 * sec, most: 6 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return swallow(n.redis) },
		mend:  func(ctx context.Context, _ *cluster, n *node) error { return n.redis.cure(ctx, "timeout") },
	},
	{
		name: "node-redis-slow", about: "node-redis", applies: onRedis, least: 2 * sec, most: 6 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return slow(n.redis) },
		mend:  func(ctx context.Context, _ *cluster, n *node) error { return n.redis.cure(ctx, "latency") },
	},
	{
		name: "node-cut-off-past-its-lease", about: "node-redis", applies: onRedis, least: 20 * sec, most: 22 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return swallow(n.redis) },
		mend:  func(ctx context.Context, _ *cluster, n *node) error { return n.redis.cure(ctx, "timeout") },
	},
	{
		name: "postgres-restarted", about: "postgres", applies: onPostgres, loses: postgresLoses, maybe: true, least: 200 * ms, most: 2 * sec, recovery: sec,
		begin: func(_ context.Context, c *cluster, _ *node) error { return c.postgres.stop() },
		mend:  func(ctx context.Context, c *cluster, _ *node) error { return c.postgres.start(ctx) },
	},
	{
		name: "postgres-crashed", about: "postgres", applies: onPostgres, loses: postgresLoses, maybe: true, least: 200 * ms, most: 2 * sec, recovery: sec,
		begin: func(_ context.Context, c *cluster, _ *node) error {
			return c.postgres.crash() // and recovers from its log
		},
		mend: func(ctx context.Context, c *cluster, _ *node) error { return c.postgres.start(ctx) },
	},
	{
		name: "node-loses-postgres", about: "node-postgres", applies: onPostgres, least: 500 * ms, most: 4 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { n.sql.cut(); return nil },
		mend:  func(_ context.Context, _ *cluster, n *node) error { return n.sql.mend() },
	},
	{
		name: "node-postgres-blackholed", about: "node-postgres", applies: onPostgres, least: 2 * sec, most: 6 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return swallow(n.sql) },
		mend:  func(ctx context.Context, _ *cluster, n *node) error { return n.sql.cure(ctx, "timeout") },
	},
	{
		name: "node-postgres-slow", about: "node-postgres", applies: onPostgres, least: 2 * sec, most: 6 * sec, recovery: sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return slow(n.sql) },
		mend:  func(ctx context.Context, _ *cluster, n *node) error { return n.sql.cure(ctx, "latency") },
	},
	{
		name: "clients-cut", about: "clients", applies: always, least: 100 * ms, most: 2 * sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error {
			return disturb(&n.front.disturbance, func() error { n.front.cut(); return nil })
		},
		mend: func(_ context.Context, _ *cluster, n *node) error {
			return recovered(&n.front.disturbance, n.front.mend())
		},
	},
	{
		name: "clients-slow", about: "clients", applies: always, least: 2 * sec, most: 5 * sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error { return slow(n.front) },
		mend:  func(ctx context.Context, _ *cluster, n *node) error { return n.front.cure(ctx, "latency") },
	},
	{
		name: "clients-blackholed", about: "clients", applies: always, least: 2 * sec, most: 5 * sec, atNode: true,
		begin: func(_ context.Context, _ *cluster, n *node) error {
			return disturb(&n.front.disturbance, func() error { return swallow(n.front) })
		},
		// The proxy closes the connections whose bytes it dropped.
		mend: func(ctx context.Context, _ *cluster, n *node) error {
			return recovered(&n.front.disturbance, n.front.cure(ctx, "timeout"))
		},
	},
}

func faultNamed(name string) (fault, bool) {
	for _, f := range faults {
		if f.name == name {
			return f, true
		}
	}
	return fault{}, false
}

// Faults are the names of all faults.
func Faults() (names []string) {
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

func always(Config) bool       { return true }
func onRedis(c Config) bool    { return c.uses(Redis) }
func onPostgres(c Config) bool { return c.uses(Postgres) }

func onLossyRedis(c Config) bool    { return c.Lossy && c.uses(Redis) }
func onLossyPostgres(c Config) bool { return c.Lossy && c.uses(Postgres) }

// redisLoses and postgresLoses report whether a loss of data there loses messages.
func redisLoses(c Config) bool    { return c.Lossy && c.History == Redis }
func postgresLoses(c Config) bool { return c.Lossy && c.History == Postgres }

func nothing(context.Context, *cluster, *node) error { return nil }

// disturb records that sockets may end, before it breaks something.
func disturb(d *disturbance, do func() error) error {
	d.begin()
	return do()
}

// recovered records, a while later, that sockets may no longer end.
func recovered(d *disturbance, err error) error {
	time.AfterFunc(aftermath, d.end)
	return err
}

func restart(ctx context.Context, c *cluster, n *node) error {
	return recovered(&n.disturbance, c.startNode(ctx, n))
}

// swallow makes a line drop all bytes and keep its connections open.
func swallow(l *line) error { return l.poison("timeout", map[string]any{"timeout": 0}) }

// slow makes a line delay its bytes by up to 400 ms.
func slow(l *line) error {
	return l.poison("latency", map[string]any{"latency": 250, "jitter": 150})
}
