package chaos

import (
	"context"
	"slices"
)

// redisFaults are faults of Redis' data and permissions. After one that loses data, a new
// run of Redis or another server serves.
var redisFaults = slices.Concat([]fault{
	{
		name: "redis-older-snapshot", about: "redis", applies: onLossyRedis, least: 2 * sec, most: 6 * sec, recovery: 2 * sec,
		loses: redisLoses, doubts: true,
		begin: func(ctx context.Context, c *cluster, _ *node) error { return c.redis.save(ctx) },
		mend: func(ctx context.Context, c *cluster, _ *node) error {
			if err := c.redis.kill(); err != nil {
				return err
			}
			return c.redis.startFromSnapshot(ctx)
		},
	},
	{
		name: "redis-older-file", about: "redis", applies: onLossyRedis, least: 2 * sec, most: 6 * sec, recovery: 2 * sec,
		loses: redisLoses, doubts: true,
		begin: func(ctx context.Context, c *cluster, _ *node) error { return c.redis.copyLog(ctx) },
		mend: func(ctx context.Context, c *cluster, _ *node) error {
			if err := c.redis.kill(); err != nil {
				return err
			}
			return c.redis.startFromCopy(ctx)
		},
	},
	{
		name: "redis-crashed-without-fsync", about: "redis", applies: onLossyRedis, least: 200 * ms, most: 2 * sec, recovery: 2 * sec,
		loses: redisLoses, doubts: true,
		begin: func(ctx context.Context, c *cluster, _ *node) error { return c.redis.noteFlushed(ctx) },
		mend: func(ctx context.Context, c *cluster, _ *node) error {
			if err := c.redis.kill(); err != nil {
				return err
			}
			return c.redis.startAfterCrash(ctx)
		},
	},
	{
		name: "redis-back-empty", about: "redis", applies: onLossyRedis, least: 200 * ms, most: 3 * sec, recovery: 2 * sec,
		loses: redisLoses, doubts: true,
		begin: func(_ context.Context, c *cluster, _ *node) error { return c.redis.kill() },
		mend:  startEmpty,
	},
	{
		// One node is disconnected meanwhile. When it reconnects, Redis looks like another server.
		name: "redis-back-empty-behind-a-node", about: "redis", also: "node-redis", applies: onLossyRedis, least: sec, most: 4 * sec, recovery: 2 * sec, atNode: true,
		loses: redisLoses, doubts: true,
		begin: func(ctx context.Context, c *cluster, n *node) error {
			n.redis.cut()
			if err := c.redis.kill(); err != nil {
				return err
			}
			return startEmpty(ctx, c, n)
		},
		mend: func(_ context.Context, _ *cluster, n *node) error { return n.redis.mend() },
	},
	{
		name: "redis-emptied", about: "redis", applies: onLossyRedis, recovery: 2 * sec,
		loses: redisLoses, doubts: true,
		begin: func(ctx context.Context, c *cluster, _ *node) error { return c.redis.admin.FlushAll(ctx).Err() },
		mend:  nothing,
	},
	{
		name: "redis-replica-promoted", about: "redis", applies: onLossyRedis, least: 500 * ms, most: 4 * sec, recovery: 2 * sec,
		loses: redisLoses, doubts: true,
		begin: beginReplica,
		mend:  promoteReplica,
	},
}, revoked("xadd", "hset", "hincrby", "set", "pexpire", "publish", "evalsha"))

func startEmpty(ctx context.Context, c *cluster, _ *node) error {
	if err := c.redis.wipe(); err != nil {
		return err
	}
	return c.redis.start(ctx)
}

// beginReplica starts a replica, waits until it has all data, and cuts its line.
func beginReplica(ctx context.Context, c *cluster, _ *node) (err error) {
	if c.redisReplica, err = c.newRedis(); err != nil {
		return err
	}
	if err := c.redisReplica.start(ctx); err != nil {
		return err
	}
	if err := c.leadReplication(c.redis.address); err != nil {
		return err
	}
	if err := c.redisReplica.replicate(ctx, c.replication); err != nil {
		return err
	}
	c.replication.cut()
	return nil
}

// promoteReplica kills the master and promotes the replica with the data that it has.
func promoteReplica(ctx context.Context, c *cluster, _ *node) error {
	if err := c.redis.kill(); err != nil {
		return err
	}
	if err := c.redis.close(); err != nil {
		return err
	}
	if err := c.redisReplica.promote(ctx); err != nil {
		return err
	}
	c.redis, c.redisReplica = c.redisReplica, nil
	for _, n := range c.nodes {
		if err := n.redis.lead(c.redis.address); err != nil {
			return err
		}
	}
	return nil
}

// leadReplication makes a line to a primary for a server that copies it.
func (c *cluster) leadReplication(primary string) (err error) {
	if c.replication == nil {
		c.replication, err = c.lines.to("replication", primary)
		return err
	}
	if err := c.replication.lead(primary); err != nil {
		return err
	}
	return c.replication.mend()
}

// revoked are faults that revoke the permission for a command for a moment. They lose no
// acknowledged message and leave nothing half-written.
func revoked(commands ...string) (list []fault) {
	for _, command := range commands {
		set := func(rule string) func(context.Context, *cluster, *node) error {
			return func(ctx context.Context, c *cluster, _ *node) error {
				return c.redis.admin.Do(ctx, "ACL", "SETUSER", "default", rule+command).Err()
			}
		}
		list = append(list, fault{
			name: "redis-no-" + command, about: "redis", applies: onRedis, least: 300 * ms, most: 3 * sec, recovery: sec,
			begin: set("-"),
			mend:  set("+"),
		})
	}
	return list
}
