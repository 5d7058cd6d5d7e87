package chaos

import (
	"errors"
	"fmt"
	"time"
)

// The backends of the nodes.
const (
	Memory   = "memory"
	Redis    = "redis"
	Postgres = "postgres"
)

// Config says what to run. All fields are needed; [Default] has a full set.
type Config struct {
	Seed     uint64        // decides the faults, their times and where they strike
	Length   time.Duration // how long faults strike
	Nodes    int           // processes; 1 with a Memory registry
	Clients  int           // sockets that follow
	Rate     int           // messages published a second, all publishers together
	Registry string        // Memory or Redis
	History  string        // Memory, Redis or Postgres

	// Lossy adds the faults that lose acknowledged data of Redis or PostgreSQL. The nodes
	// then run without -redis-durable, so a new run of Redis begins a new epoch. Clients
	// that miss messages must be told.
	Lossy bool
	// Skew is how far the nodes' clocks are off during the whole run, some behind and some
	// ahead; 0 is correct. Messages are kept for three quarters of it, which must be longer
	// than the run.
	Skew time.Duration

	// Faults are the names of the faults to choose from; nil: all that apply.
	Faults []string
	// Lease is the most that the registry may take to notice that a node is gone.
	Lease time.Duration
	// Forgetful allows a report of a loss to clients at any time, as when a node is killed
	// whose history is in memory.
	Forgetful bool
	// Race builds the nodes with the race detector.
	Race bool
	// Keep keeps the directory with the logs. After findings it is kept anyway.
	Keep bool

	fsync   string        // when Redis does, as its appendfsync has it
	patient time.Duration // what Storm takes for too late; 0: stormWithin
}

// Default is a run of a minute with three nodes and 3,000 clients.
func Default() Config {
	return Config{
		Seed:     1,
		Length:   time.Minute,
		Nodes:    3,
		Clients:  3000,
		Rate:     50,
		Registry: Redis,
		History:  Postgres,
		Lease:    15 * time.Second,
		fsync:    "always",
	}
}

func (c Config) validate() error {
	switch {
	case c.Length <= 0:
		return errors.New("chaos: length is not more than zero")
	case c.Nodes < 1:
		return errors.New("chaos: no nodes")
	case c.Clients < 1:
		return errors.New("chaos: no clients")
	case c.Rate < 1:
		return errors.New("chaos: nothing is published")
	case c.Registry != Memory && c.Registry != Redis:
		return fmt.Errorf("chaos: registry %q is not %s or %s", c.Registry, Memory, Redis)
	case c.History != Memory && c.History != Redis && c.History != Postgres:
		return fmt.Errorf("chaos: history %q is not %s, %s or %s", c.History, Memory, Redis, Postgres)
	case c.Registry == Memory && c.Nodes > 1:
		return errors.New("chaos: a registry in memory is that of one node")
	case c.History == Memory && c.Nodes > 1:
		return errors.New("chaos: a history in memory is that of one node")
	case c.Skew < 0:
		return errors.New("chaos: skew is less than zero")
	case c.Skew > 0 && c.Skew*3/4 < c.Length+runMargin:
		return fmt.Errorf("chaos: messages are kept for %v with clocks that are off by %v, which a run of %v is too long for",
			c.Skew*3/4, c.Skew, c.Length)
	}
	for _, name := range c.Faults {
		f, ok := faultNamed(name)
		if !ok {
			return fmt.Errorf("chaos: there is no fault %q", name)
		}
		if !f.applies(c) {
			return fmt.Errorf("chaos: the fault %q does not apply: it needs another registry or history, or is one that loses data (-lossy)", name)
		}
	}
	return nil
}

// runMargin is the most that a run takes beyond the time of its faults.
const runMargin = 15 * time.Minute

// ForSeed sets what a seed decides about a whole run: at even seeds faults lose data,
// and of four seeds in a row two have nodes whose clocks are an hour off.
func (c Config) ForSeed() Config {
	c.Lossy = c.Seed%2 == 0
	c.Skew = 0
	if c.Seed/2%2 == 1 {
		c.Skew = time.Hour
	}
	return c
}

// uses reports whether the nodes use this backend.
func (c Config) uses(kind string) bool { return c.Registry == kind || c.History == kind }

// plain reports whether chatd, which has no backends, is enough.
func (c Config) plain() bool { return c.Registry == Memory && c.History == Memory }
