package chaos

import (
	"errors"
	"fmt"
	"time"
)

// What may stand behind the nodes.
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

	// Lossy adds the faults that lose what Redis or PostgreSQL had acknowledged. The
	// nodes are not told then that Redis is durable (-redis-durable), so a new run of
	// Redis begins a new epoch. Clients may be told of losses, and have to be.
	Lossy bool
	// Skew is by how much the nodes' clocks are off, some behind and some ahead, for the
	// whole run. At 0 they are right. Messages are kept for three quarters of it, which
	// has to be longer than the run.
	Skew time.Duration

	// Faults are those to choose from, by name; nil: all that apply.
	Faults []string
	// Lease is how long the registry takes at most to notice that a node is gone.
	Lease time.Duration
	// Forgetful lets a client be told that something was no longer kept, as it is
	// when a node is killed that has its history in memory.
	Forgetful bool
	// Race builds the nodes with the race detector.
	Race bool
	// Keep leaves the directory with the logs there. It is left after findings, too.
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

// runMargin is how much longer than its faults a run takes at most.
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

// uses reports whether something of that kind stands behind the nodes.
func (c Config) uses(kind string) bool { return c.Registry == kind || c.History == kind }

// plain reports whether chatd itself is enough, which has no other backends.
func (c Config) plain() bool { return c.Registry == Memory && c.History == Memory }
