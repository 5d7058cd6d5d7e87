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

// Option changes a default of a history. One that makes no sense is an error of
// the function that it is given to.
type Option func(*config) error

type config struct {
	count   int
	age     time.Duration
	batch   int
	timeout time.Duration
	relaxed bool
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

// WithCount is how many messages are kept of each channel, 100,000 by default. For a
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

// WithAge is how long a message is kept, 30 days by default, counted by the database's
// clock from when it was stored. What is older is not read any more, and is deleted
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

// WithBatch is how many messages share a transaction at most, 512 by default.
func WithBatch(messages int) Option {
	return func(c *config) error {
		if messages < 1 || messages > 10_000 {
			return fmt.Errorf("WithBatch(%d): not within 1 and 10,000", messages)
		}
		c.batch = messages
		return nil
	}
}

// WithTimeout bounds each transaction and each reading, 5 seconds by default, and
// Append, which may have to wait for the transaction before its own, by twice that.
// What takes longer is an error.
func WithTimeout(d time.Duration) Option {
	return func(c *config) error {
		if d <= 0 {
			return fmt.Errorf("WithTimeout(%v): not positive", d)
		}
		c.timeout = d
		return nil
	}
}

// WithRelaxedSync has [OpenSQLite] leave it to the operating system when a commit
// goes to disk (synchronous=NORMAL). What was acknowledged outlives the process,
// but not a power failure: the last moments may be missing then, and a new epoch
// begins. It needs to know when the machine was started, which it does on Linux.
func WithRelaxedSync() Option {
	return func(c *config) error {
		c.relaxed = true
		return nil
	}
}

// WithLogger replaces [slog.Default]. What cannot be deleted in the background is
// logged, and that a new epoch began.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: nil")
		}
		c.logger = l
		return nil
	}
}
