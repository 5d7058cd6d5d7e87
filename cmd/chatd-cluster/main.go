// Chatd-cluster is chatd with every backend: nodes that share users and messages
// through Redis, a history in PostgreSQL, SQLite or Redis, and metrics for
// Prometheus at /metrics of -debug-addr.
//
//	chatd-cluster -registry redis://redis:6379 -history postgres://chat@db/chat \
//		-users users -secret-file secret -plaintext -addr :8080
//
// Settings that may contain a password can be variables instead: CHATD_REGISTRY and
// CHATD_HISTORY. Everything else is the same as in chatd; -help lists the flags.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/reto10/chat/internal/cli"
	"github.com/reto10/chat/internal/daemon"
)

func main() {
	var s settings
	prog := daemon.Program{
		Name:       "chatd-cluster",
		Registries: []string{"redis://…", "rediss://…", "redis+cluster://…", "redis+sentinel://…"},
		Histories:  []string{"redis", "sqlite:FILE", "postgres://…"},
		Flags: func(flags *flag.FlagSet) {
			cli.Var(flags, &s.prefix, "redis-prefix", "chat:", parsePrefix,
				"begin the names of keys in Redis with this `text`; services that share nothing but a Redis need different ones")
			cli.Var(flags, &s.lease, "lease", "15s", cli.AtLeast(time.Second),
				"the `duration` after which the users of a node that has died leave; the same on all nodes")
			flags.BoolVar(&s.durable, "redis-durable", false,
				"Redis never loses what it has acknowledged (appendfsync always, no failover to a replica, no restore of an older copy), so its restart loses no messages")
		},
		Open: s.open,
	}
	os.Exit(daemon.Main(context.Background(), prog, daemon.Process{
		Args:      os.Args[1:],
		LookupEnv: os.LookupEnv,
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		Notify:    signal.Notify,
	}))
}

func parsePrefix(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, "{}") {
		return "", errors.New("must not be empty or contain a brace: Redis Cluster gives braces a meaning")
	}
	return s, nil
}
