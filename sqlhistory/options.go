package sqlhistory

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Defaults of the options.
const (
	defaultCount   = 100_000             // WithCount
	defaultAge     = 30 * 24 * time.Hour // WithAge
	defaultBatch   = 512                 // WithBatch
	defaultTimeout = 5 * time.Second     // WithTimeout
)

// Option changes a default of a history. An invalid value is an error of the function that
// the option is passed to.
type Option func(*config) error

type config struct {
	count   int
	age     time.Duration
	batch   int
	timeout time.Duration
	logger  *slog.Logger
}

func newConfig(opts []Option) (config, error) {
	c := config{count: defaultCount, age: defaultAge, batch: defaultBatch, timeout: defaultTimeout, logger: slog.Default()}
	for _, opt := range opts {
		if err := opt(&c); err != nil {
			return c, fmt.Errorf("sqlhistory: %w", err)
		}
	}
	return c, nil
}

// WithCount sets how many messages of each channel are kept, by default 100,000. For a
// while there may be a quarter more.
func WithCount(messages int) Option {
	return func(c *config) error {
		if messages < 1 {
			return fmt.Errorf("WithCount(%d): less than one message", messages)
		}
		c.count = messages
		return nil
	}
}

// WithAge sets how long a message is kept, by default 30 days. Its age counts from when it
// was stored, by the database's clock. An older message is no longer returned, and is deleted
// within a minute.
func WithAge(age time.Duration) Option {
	return func(c *config) error {
		if age < time.Second {
			return fmt.Errorf("WithAge(%v): less than a second", age)
		}
		c.age = age
		return nil
	}
}

// WithBatch sets the maximum number of messages in a transaction, by default 512.
func WithBatch(messages int) Option {
	return func(c *config) error {
		if messages < 1 || messages > 10_000 {
			return fmt.Errorf("WithBatch(%d): not within 1 and 10,000", messages)
		}
		c.batch = messages
		return nil
	}
}

// WithTimeout bounds each transaction and each read, by default to 5 seconds. Append may
// have to wait for the transaction before its own: it gets twice that for each transaction.
func WithTimeout(d time.Duration) Option {
	return func(c *config) error {
		if d <= 0 {
			return fmt.Errorf("WithTimeout(%v): not positive", d)
		}
		c.timeout = d
		return nil
	}
}

// WithLogger replaces [slog.Default]. The history logs failures to delete old messages, and
// the beginning of an epoch.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: nil")
		}
		c.logger = l
		return nil
	}
}
