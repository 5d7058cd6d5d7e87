// Chatd-cluster is chatd with every backend: nodes that share users and messages
// through Redis, a history in PostgreSQL, SQLite or Redis, and metrics for
// Prometheus at /metrics of -debug-addr.
//
//	chatd-cluster -registry redis://redis:6379 -history postgres://chat@db/chat \
//		-users users -secret-file secret -plaintext -addr :8080
//
// Whatever may hold a password can be a variable instead: CHATD_REGISTRY and
// CHATD_HISTORY. All else is as with chatd; -help lists the flags.
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
				"begin the names of keys in Redis with this `text`; chats that share a Redis and nothing else need different ones")
			cli.Var(flags, &s.lease, "lease", "15s", cli.AtLeast(time.Second),
				"the `duration` after which the users of a node that has died leave; the same on all nodes")
			flags.BoolVar(&s.durable, "redis-durable", false,
				"Redis never misses what it has acknowledged (appendfsync always, no replica that takes over, no older copy put in its place): its restart is no loss")
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
		return "", errors.New("empty, or with a brace, which Redis Cluster gives a meaning")
	}
	return s, nil
}
