package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/redisregistry"
)

// redisKinds are the schemes of a -registry: one server, a Redis Cluster, or a master that
// Sentinels watch, each with TLS or without.
var redisKinds = []string{"redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"}

// openRedis opens the registry at a URL. It returns when the registry can publish and
// receive messages. The second result closes the registry.
func (s *settings) openRedis(ctx context.Context, where daemon.Storage, log *slog.Logger) (*redisregistry.Registry, func() error, error) {
	redis.SetLogger(redisLog{log})
	client, sentinels, err := redisClient(where.Registry)
	if err != nil {
		return nil, nil, err
	}
	if err := askSentinels(ctx, sentinels); err != nil {
		_ = client.Close() // nothing to wait for
		return nil, nil, fmt.Errorf("connecting to -registry %s: %w", shown(where.Registry), err)
	}
	var answer redis.Error
	if err := redisregistry.Ping(ctx, client); err != nil && (!errors.As(err, &answer) || errors.Is(err, redisregistry.ErrMisconfigured)) {
		// Retry only while Redis loads its data; other errors do not go away by waiting.
		_ = client.Close() // nothing to wait for
		return nil, nil, fmt.Errorf("connecting to -registry %s: %w", shown(where.Registry), err)
	}
	registry, err := s.newRegistry(client, where, log)
	if err != nil {
		_ = client.Close()
		return nil, nil, daemon.UsageError("%w", err)
	}
	shutDown := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		if err := registry.Shutdown(ctx); err != nil {
			// The sockets of this node are closed by now, and the other nodes notice by themselves.
			log.Warn("the registry could not report that this node ends: the other nodes notice it within the lease", "err", err, "lease", s.lease)
		}
		return client.Close()
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := registry.Check(ctx)
		if err == nil {
			return registry, shutDown, nil
		}
		if errors.Is(err, redisregistry.ErrMisconfigured) { // waiting changes nothing
			_ = shutDown() // the first error is returned
			return nil, nil, fmt.Errorf("starting with -registry %s: %w", shown(where.Registry), err)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			_ = shutDown() // the first error is returned
			return nil, nil, fmt.Errorf("waiting for -registry %s: %w", shown(where.Registry), err)
		}
	}
}

// redisClient returns a client for a URL in go-redis' syntax: &addr=host:port adds an
// address of a Cluster or a Sentinel, and &master_name= names the Sentinels' master. With
// Sentinels it also returns the options to reach them.
func redisClient(where string) (redis.UniversalClient, *redis.FailoverOptions, error) {
	u, err := parseURL("registry", where)
	if err != nil {
		return nil, nil, err
	}
	bad := func(err error) error {
		if u.Query().Has("password") {
			return daemon.UsageError("-registry %s: a parameter is invalid (not shown: the error may contain the password)", shown(where))
		}
		return daemon.UsageError("-registry %s: %w", shown(where), err)
	}
	scheme, form, _ := strings.Cut(u.Scheme, "+")
	u.Scheme = scheme
	switch form {
	case "cluster":
		opts, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, nil, bad(err)
		}
		opts.ContextTimeoutEnabled = true
		return redis.NewClusterClient(opts), nil, nil
	case "sentinel":
		opts, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return nil, nil, bad(err)
		}
		if opts.MasterName == "" {
			return nil, nil, daemon.UsageError("-registry %s: needs ?master_name=, the name of the master in the Sentinels", shown(where))
		}
		opts.ContextTimeoutEnabled = true
		return redis.NewFailoverClient(opts), opts, nil
	default:
		opts, err := redis.ParseURL(u.String())
		if err != nil {
			return nil, nil, bad(err)
		}
		opts.ContextTimeoutEnabled = true
		return redis.NewClient(opts), nil, nil
	}
}

// askSentinels returns an error if no Sentinel names the master. options is nil without
// Sentinels. The client itself retries for so long that their answers would be lost when
// the time is up.
func askSentinels(ctx context.Context, opts *redis.FailoverOptions) (err error) {
	if opts == nil {
		return nil
	}
	for _, addr := range opts.SentinelAddrs {
		if err = askSentinel(ctx, opts, addr); err == nil {
			return nil
		}
	}
	return err
}

// sentinelWithin bounds the answer of one Sentinel.
const sentinelWithin = 2 * time.Second

func askSentinel(ctx context.Context, opts *redis.FailoverOptions, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, sentinelWithin)
	defer cancel()
	client := redis.NewSentinelClient(&redis.Options{
		Addr: addr, Username: opts.SentinelUsername, Password: opts.SentinelPassword, TLSConfig: opts.TLSConfig,
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
	})
	defer client.Close()
	_, err := client.GetMasterAddrByName(ctx, opts.MasterName).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return fmt.Errorf("the Sentinel at %s watches no master called %q: correct ?master_name=", addr, opts.MasterName)
	case redis.HasErrorPrefix(err, "NOAUTH"), redis.HasErrorPrefix(err, "WRONGPASS"):
		return fmt.Errorf("the Sentinel at %s rejects the user or the password before the @: %w", addr, err)
	case redis.HasErrorPrefix(err, "unknown command"): // the text repeats the arguments, and one may be a password
		return fmt.Errorf("the server at %s is not a Sentinel: use redis:// for a single Redis", addr)
	case err != nil:
		return fmt.Errorf("asking the Sentinel at %s for the master: %w", addr, err)
	}
	return nil
}

func (s *settings) newRegistry(client redis.UniversalClient, where daemon.Storage, log *slog.Logger) (*redisregistry.Registry, error) {
	opts := []redisregistry.Option{
		redisregistry.WithPrefix(s.prefix),
		redisregistry.WithLease(s.lease),
		redisregistry.WithLogger(log),
	}
	if s.durable {
		opts = append(opts, redisregistry.WithDurableRedis())
	}
	if where.Count > 0 {
		opts = append(opts, redisregistry.WithCount(where.Count))
	}
	if where.Age > 0 {
		if where.Age < time.Millisecond {
			return nil, daemon.UsageError("-history-age %v: Redis keeps messages for at least a millisecond", where.Age)
		}
		opts = append(opts, redisregistry.WithAge(where.Age))
	}
	return redisregistry.New(client, opts...)
}

// redisLog receives the log of go-redis about its connections and drops it. The registry
// logs the consequences.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, args...))
}
