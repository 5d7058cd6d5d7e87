package redisregistry_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// named is a history that says which one it is.
type named struct {
	otherHistory
	name string
}

func (h named) Identity(context.Context) (string, error) { return h.name, nil }

func newNamed(name string) chat.History {
	return named{otherHistory{chat.NewMemoryHistory(chat.MemoryLimits{})}, name}
}

// own has the registry use its own history.
var own chat.History

func TestNodesWithDifferentHistoriesRefuseToWorkTogether(t *testing.T) {
	tests := map[string]struct {
		one, other chat.History
		want       []string // in the error; none: they fit
	}{
		"Redis and a database":         {own, newNamed("postgres 1"), []string{`"redis"`, `"postgres 1"`}},
		"a database and Redis":         {newNamed("postgres 1"), own, []string{`"redis"`, `"postgres 1"`}},
		"two databases":                {newNamed("postgres 1"), newNamed("postgres 2"), []string{`"postgres 1"`, `"postgres 2"`}},
		"the same database":            {newNamed("postgres 1"), newNamed("postgres 1"), nil},
		"Redis":                        {own, own, nil},
		"one that does not say which":  {own, otherHistory{chat.NewMemoryHistory(chat.MemoryLimits{})}, nil},
		"the memory of this node only": {own, chat.NewMemoryHistory(chat.MemoryLimits{}), []string{"MemoryHistory", "leave out chat.WithHistory"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t)
			lease := redisregistry.WithLease(time.Second)
			a, b := open(t, clientOf(s), lease), open(t, clientOf(s), lease)
			if _, err := a.Start(tt.one, nil); err != nil {
				t.Fatal(err)
			}
			_, err := b.Start(tt.other, nil)
			if tt.want == nil {
				if err != nil {
					t.Errorf("refused with %v", err)
				}
				b.connect("ana")
				return
			}
			if !errors.Is(err, redisregistry.ErrMisconfigured) {
				t.Fatalf("error = %v, want one that is ErrMisconfigured", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, without %s", err, want)
				}
			}
			if strings.Contains(name, "memory") {
				return
			}
			if _, err := b.Add(t.Context(), newReceiver("ana", chat.RoleUser), 0); !errors.Is(err, redisregistry.ErrMisconfigured) {
				t.Errorf("connecting: %v", err)
			}
			if err := a.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.awaitHealth(true) // the others are gone
			b.connect("ana")
		})
	}
}

// A node that was given up meets another history when it is back.
func TestANodeThatIsBackFindsAnotherHistory(t *testing.T) {
	s, a, b, line := cutOff(t)
	line.cut()
	b.awaitHealth(false)
	if err := a.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := open(t, clientOf(s), redisregistry.WithLease(time.Second))
	eventually(t, "the other history to begin", func() bool {
		_, err := c.Start(newNamed("postgres 1"), nil)
		return err == nil
	})
	line.mend()
	eventually(t, "the node to be refused", func() bool { return errors.Is(b.Check(context.Background()), redisregistry.ErrMisconfigured) })
}

func TestARedisThatEvictsIsRefused(t *testing.T) {
	tests := map[string]struct {
		args []string
		bad  bool
	}{
		"all keys":        {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, true},
		"those that end":  {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"}, true},
		"none":            {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "noeviction"}, false},
		"without a limit": {[]string{"--maxmemory-policy", "allkeys-lru"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t, tt.args...)
			if !tt.bad {
				start(t, clientOf(s))
				return
			}
			var log logBuffer
			client := clientOf(s)
			defer client.Close()
			r, err := redisregistry.New(client, log.option())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Shutdown(t.Context())
			refused := func() bool { return errors.Is(r.Check(context.Background()), redisregistry.ErrMisconfigured) }
			eventually(t, "it to be refused", refused)
			if err := r.Check(t.Context()); !strings.Contains(err.Error(), "maxmemory-policy noeviction") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q does not say what to change in a line", err)
			}
			if _, err := r.Add(t.Context(), newReceiver("ana", chat.RoleUser), 0); !errors.Is(err, redisregistry.ErrMisconfigured) {
				t.Errorf("connecting: %v", err)
			}
			if err := client.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it to be well", func() bool { return r.Check(context.Background()) == nil })
			if n := strings.Count(log.String(), "this node is not ready"); n != 1 {
				t.Errorf("logged %d times:\n%s", n, log.String())
			}
		})
	}
}

// With a history elsewhere INFO is nothing that a node needs to be allowed. With the one
// in Redis it is, and the error says so.
func TestARedisThatDoesNotTellItsPolicyIsUsed(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--rename-command", "INFO", "")
	r, err := redisregistry.New(clientOf(s), redisregistry.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Shutdown(t.Context())
	eventually(t, "it to say what it needs", func() bool {
		err := r.Check(context.Background())
		return err != nil && strings.Contains(err.Error(), "INFO")
	})
	if _, err := r.Start(otherHistory{chat.NewMemoryHistory(chat.MemoryLimits{})}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it to be well", func() bool { return r.Check(context.Background()) == nil })
}
