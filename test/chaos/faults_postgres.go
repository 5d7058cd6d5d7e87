package chaos

import (
	"context"
	"os"
	"slices"
	"strings"
)

// relaxedFor is how long commits stay relaxed after a crash: the nodes must see the setting
// of the server that serves next.
const relaxedFor = 3 * sec

// postgresFaults are faults of PostgreSQL's data and permissions.
var postgresFaults = slices.Concat([]fault{
	{
		name: "postgres-older-copy", about: "postgres", applies: onLossyPostgres, least: 2 * sec, most: 6 * sec, recovery: 2 * sec,
		loses: postgresLoses,
		begin: func(ctx context.Context, c *cluster, _ *node) error { return c.postgres.backup(ctx) },
		mend: func(ctx context.Context, c *cluster, _ *node) error {
			if err := c.postgres.crash(); err != nil {
				return err
			}
			return c.postgres.startFromBackup(ctx)
		},
	},
	{
		name: "postgres-crashed-without-fsync", about: "postgres", applies: onLossyPostgres, least: sec, most: 3 * sec, recovery: 2 * sec,
		loses: postgresLoses, maybe: true,
		begin: func(ctx context.Context, c *cluster, _ *node) error { return c.postgres.relax(ctx, true) },
		mend: func(ctx context.Context, c *cluster, _ *node) error {
			if err := c.postgres.crash(); err != nil {
				return err
			}
			if err := c.postgres.start(ctx); err != nil {
				return err
			}
			c.lossOver()
			pause(ctx, relaxedFor)
			return c.postgres.relax(ctx, false)
		},
	},
	{
		name: "postgres-standby-promoted", about: "postgres", applies: onLossyPostgres, least: 500 * ms, most: 4 * sec, recovery: 2 * sec,
		loses: postgresLoses,
		begin: beginStandby,
		mend:  promoteStandby,
	},
}, revokedInPostgres("INSERT", "UPDATE", "SELECT"))

// beginStandby starts a standby, waits until it has all data, and cuts its line.
func beginStandby(ctx context.Context, c *cluster, _ *node) (err error) {
	if err := c.leadReplication(c.postgres.address); err != nil {
		return err
	}
	if c.postgresStandby, err = c.newPostgres(); err != nil {
		return err
	}
	if err := c.postgresStandby.follow(ctx, c.replication); err != nil {
		return err
	}
	c.replication.cut()
	return nil
}

// promoteStandby kills the primary and promotes the standby with the data that it has.
func promoteStandby(ctx context.Context, c *cluster, _ *node) error {
	if err := c.postgres.crash(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.postgres.dir); err != nil {
		return err
	}
	if err := c.postgresStandby.promote(ctx); err != nil {
		return err
	}
	c.postgres, c.postgresStandby = c.postgresStandby, nil
	for _, n := range c.nodes {
		if err := n.sql.lead(c.postgres.address); err != nil {
			return err
		}
	}
	return nil
}

// revokedInPostgres are faults that revoke a permission on the tables for a moment.
func revokedInPostgres(permissions ...string) (list []fault) {
	for _, permission := range permissions {
		permit := func(on bool) func(context.Context, *cluster, *node) error {
			return func(ctx context.Context, c *cluster, _ *node) error { return c.postgres.permit(ctx, permission, on) }
		}
		list = append(list, fault{
			name: "postgres-no-" + strings.ToLower(permission), about: "postgres", applies: onPostgres, least: 300 * ms, most: 3 * sec, recovery: sec,
			begin: permit(false),
			mend:  permit(true),
		})
	}
	return list
}
