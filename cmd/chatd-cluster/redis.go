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

// redisKinds are the schemes of a -registry: one server, a Redis Cluster, and
// what Sentinels watch, each with TLS or without.
var redisKinds = []string{"redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"}

// openRedis opens the registry of a URL, and returns it, and what closes it, when
// messages get through.
func (s *settings) openRedis(ctx context.Context, where daemon.Storage, log *slog.Logger) (*redisregistry.Registry, func() error, error) {
	redis.SetLogger(redisLog{log})
	client, sentinels, err := redisClient(where.Registry)
	if err != nil {
		return nil, nil, err
	}
	if err := askSentinels(ctx, sentinels); err != nil {
		_ = client.Close() // nothing was begun
		return nil, nil, fmt.Errorf("connecting to -registry %s: %w", shown(where.Registry), err)
	}
	var answer redis.Error
	if err := redisregistry.Ping(ctx, client); err != nil && (!errors.As(err, &answer) || errors.Is(err, redisregistry.ErrMisconfigured)) {
		// It is not there, or waiting changes nothing. What is loading its data may be
		// ready in time.
		_ = client.Close() // nothing was begun
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
			// Everybody here was told by now, and the other nodes notice by themselves.
			log.Warn("the other nodes could not be told that this one ends, they notice within the lease", "err", err, "lease", s.lease)
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
			_ = shutDown() // what went wrong first is told
			return nil, nil, fmt.Errorf("starting with -registry %s: %w", shown(where.Registry), err)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			_ = shutDown() // what went wrong first is told
			return nil, nil, fmt.Errorf("waiting for -registry %s: %w", shown(where.Registry), err)
		}
	}
}

// redisClient makes a client of a URL as go-redis reads it: more addresses of a
// Cluster or of Sentinels are &addr=host:port, Sentinels' master is &master_name=. Where
// there are Sentinels it returns how they are reached, too.
func redisClient(where string) (redis.UniversalClient, *redis.FailoverOptions, error) {
	u, err := parseURL("registry", where)
	if err != nil {
		return nil, nil, err
	}
	bad := func(err error) error {
		if u.Query().Has("password") {
			return daemon.UsageError("-registry %s: its parameters make no sense", shown(where))
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
			return nil, nil, daemon.UsageError("-registry %s: needs ?master_name=, which is what the Sentinels call it", shown(where))
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

// askSentinels looks whether a Sentinel names the master; nil options have none. The
// client itself asks them for so long that what they said is lost when time is up.
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
		return fmt.Errorf("the Sentinel at %s needs another user and password, which stand before the @: %w", addr, err)
	case redis.HasErrorPrefix(err, "unknown command"): // it repeats arguments, of which one may be a password
		return fmt.Errorf("what listens at %s is no Sentinel: redis:// is for one Redis", addr)
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
			return nil, daemon.UsageError("-history-age %v: Redis keeps messages for a millisecond at least", where.Age)
		}
		opts = append(opts, redisregistry.WithAge(where.Age))
	}
	return redisregistry.New(client, opts...)
}

// redisLog is where go-redis writes what it thinks of its connections. Whatever
// comes of that the registry logs itself.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, args...))
}
