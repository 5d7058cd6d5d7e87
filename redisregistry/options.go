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

// Option configures [New]. New returns an error for an invalid option.
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

// WithPrefix sets the prefix of all keys and pub/sub channels. Services that share a Redis need
// different prefixes, also in different databases, because pub/sub ignores databases. The
// default is "chat:".
func WithPrefix(prefix string) Option {
	return func(c *config) error {
		if prefix == "" || strings.ContainsAny(prefix, "{}") {
			return fmt.Errorf("WithPrefix: %q is empty or contains a brace, which has a meaning in a Redis Cluster", prefix)
		}
		c.prefix = prefix
		return nil
	}
}

// WithLease sets the time within which the users of a dead node leave. All nodes need the same
// value, at least one second. The default is 15 seconds.
func WithLease(d time.Duration) Option {
	return func(c *config) error {
		if d < time.Second {
			return fmt.Errorf("WithLease: %v is less than a second", d)
		}
		c.lease = d
		return nil
	}
}

// WithCount sets how many messages of each channel are kept. The default is 1,000. Redis may
// store some more until it deletes them: an eighth, but not more than 64. Nobody can read these.
func WithCount(messages int) Option {
	return func(c *config) error {
		if messages <= 0 {
			return fmt.Errorf("WithCount: %d is not positive", messages)
		}
		c.count = messages
		return nil
	}
}

// WithAge sets how long messages are kept. Nobody can read older ones. Redis deletes them up to
// a 64th of that time later, when a message of the channel is stored, and the whole stream
// after that time without a message. The default is 24 hours.
func WithAge(d time.Duration) Option {
	return func(c *config) error {
		if d < time.Millisecond {
			return fmt.Errorf("WithAge: %v is less than a millisecond", d)
		}
		c.age = d
		return nil
	}
}

// WithTimeout limits how long a call to Redis may take. It is also how long a probe may take
// through pub/sub before Redis counts as unreachable. The default is 2 seconds.
func WithTimeout(d time.Duration) Option {
	return func(c *config) error {
		if d <= 0 {
			return fmt.Errorf("WithTimeout: %v is not positive", d)
		}
		c.timeout = d
		return nil
	}
}

// WithDurableRedis declares that Redis never loses a message that it has acknowledged: each
// write is on disk before Redis answers (appendonly yes, appendfsync always), no replica ever
// takes over, and no older copy of its files is ever restored. Then a restart of Redis
// continues the epoch of all channels, and connected clients notice nothing. Otherwise each
// restart and each failover begins a new epoch, and clients learn that messages may be
// missing.
func WithDurableRedis() Option {
	return func(c *config) error {
		c.durable = true
		return nil
	}
}

// WithLogger replaces [slog.Default]. It logs when the connection to Redis is lost and
// restored.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: nil")
		}
		c.logger = l
		return nil
	}
}
