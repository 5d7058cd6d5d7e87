package redisregistry

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Defaults of the options.
const (
	defaultPrefix  = "chat:"          // WithPrefix
	defaultLease   = 15 * time.Second // WithLease
	defaultCount   = 1000             // WithCount
	defaultAge     = 24 * time.Hour   // WithAge
	defaultTimeout = 2 * time.Second  // WithTimeout
)

// Option changes a default of [New]. One that makes no sense is New's error.
type Option func(*config) error

type config struct {
	prefix  string
	lease   time.Duration
	count   int
	age     time.Duration
	timeout time.Duration
	durable bool
	logger  *slog.Logger
}

func newConfig(opts []Option) (config, error) {
	c := config{
		prefix:  defaultPrefix,
		lease:   defaultLease,
		count:   defaultCount,
		age:     defaultAge,
		timeout: defaultTimeout,
		logger:  slog.Default(),
	}
	for _, opt := range opts {
		if err := opt(&c); err != nil {
			return config{}, fmt.Errorf("redisregistry: %w", err)
		}
	}
	return c, nil
}

// WithPrefix begins the names of all keys and pub/sub channels. Services that share
// a Redis and nothing else need different ones, in different databases of a server,
// too: pub/sub is common to them. The default is "chat:".
func WithPrefix(prefix string) Option {
	return func(c *config) error {
		if prefix == "" || strings.ContainsAny(prefix, "{}") {
			return fmt.Errorf("WithPrefix: %q is empty or holds a brace, which Redis Cluster gives a meaning", prefix)
		}
		c.prefix = prefix
		return nil
	}
}

// WithLease is within what time the users of a node that has died leave: the others
// must have heard from it meanwhile. All nodes need the same. At least a second; the default is 15.
func WithLease(d time.Duration) Option {
	return func(c *config) error {
		if d < time.Second {
			return fmt.Errorf("WithLease: %v is less than a second", d)
		}
		c.lease = d
		return nil
	}
}

// WithCount is how many messages of each channel are kept. The default is 1,000.
func WithCount(messages int) Option {
	return func(c *config) error {
		if messages <= 0 {
			return fmt.Errorf("WithCount: %d is not positive", messages)
		}
		c.count = messages
		return nil
	}
}

// WithAge is how long messages are kept. Those past it go when the next come to
// their channel, or when none came for that long. The default is 24 hours.
func WithAge(d time.Duration) Option {
	return func(c *config) error {
		if d < time.Millisecond {
			return fmt.Errorf("WithAge: %v is less than a millisecond", d)
		}
		c.age = d
		return nil
	}
}

// WithTimeout bounds whatever is asked of Redis, and how long a probe may be on its
// way through pub/sub until Redis counts as unreachable. The default is 2 seconds.
func WithTimeout(d time.Duration) Option {
	return func(c *config) error {
		if d <= 0 {
			return fmt.Errorf("WithTimeout: %v is not positive", d)
		}
		c.timeout = d
		return nil
	}
}

// WithDurableRedis says that Redis never misses a message that it has acknowledged,
// whatever happens to it: each write is on disk before it is answered (appendonly
// yes, appendfsync always), no replica ever takes over, and no older copy of its
// files is ever put in their place. Then a restart of Redis continues the epoch of all
// channels, and connected clients notice nothing. Otherwise each restart and each
// failover begins a new epoch: clients are told that messages may be missing.
func WithDurableRedis() Option {
	return func(c *config) error {
		c.durable = true
		return nil
	}
}

// WithLogger replaces [slog.Default]. It is told when Redis is lost and found.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: nil")
		}
		c.logger = l
		return nil
	}
}
