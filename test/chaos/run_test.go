package chaos

import (
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/sqlhistory/postgres"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// linked makes the nodes' code a part of this test binary. It does not run, but go test
// compares the binary to decide whether a cached result is still valid.
var linked = []any{daemon.Main, redisregistry.New, postgres.Open}

func short(t *testing.T) Config {
	t.Helper()
	if len(linked) == 0 {
		t.Fatal("the nodes are not linked")
	}
	c := Default()
	c.Length = 10 * time.Second
	c.Clients = 200
	c.Race = raced()
	return c
}

// raced reports whether this binary has the race detector, so that the nodes have it too.
func raced() bool {
	info, _ := debug.ReadBuildInfo()
	for _, setting := range info.Settings {
		if setting.Key == "-race" {
			return setting.Value == "true"
		}
	}
	return false
}

func run(t *testing.T, c Config) Verdict {
	t.Helper()
	v, err := Run(t.Context(), c, t.Output())
	return logged(t, v, err)
}

// logged fails the test if a run could not be carried out, and logs the verdict.
func logged(t *testing.T, v Verdict, err error) Verdict {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if v.Dir != "" {
		t.Cleanup(func() {
			if !t.Failed() { // it was to find something
				_ = os.RemoveAll(v.Dir)
			}
		})
	}
	var text strings.Builder
	v.Print(&text)
	t.Log(text.String())
	return v
}

// The run must find a real loss: a node that is killed with its history in memory has
// forgotten the positions of its clients.
func TestRunFindsWhatANodeForgot(t *testing.T) {
	t.Parallel()
	c := short(t)
	c.Registry, c.History, c.Nodes = Memory, Memory, 1
	c.Faults = []string{"node-killed"}
	c.Length = 5 * time.Second
	c.Clients = 50
	v := run(t, c)
	if v.Findings[findForgotten] == 0 {
		t.Errorf("findings %v, want %s among them", v.Findings, findForgotten)
	}
}

// Without a kill, the same node loses nothing, whatever happens to its clients.
func TestOneNodeLosesNothingWhileItsClientsAreCut(t *testing.T) {
	t.Parallel()
	c := short(t)
	c.Registry, c.History, c.Nodes = Memory, Memory, 1
	c.Faults = []string{"clients-cut", "clients-slow", "clients-blackholed", "node-paused"}
	if v := run(t, c); !v.OK() {
		t.Errorf("findings %v", v.Findings)
	}
}

func TestClusterKeepsItsPromisesWhileItBreaks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		history string
		seed    uint64
	}{
		{"history in PostgreSQL", Postgres, 1},
		{"history in Redis", Redis, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := short(t)
			c.History, c.Seed = test.history, test.seed
			needs(t, c)
			if v := run(t, c); !v.OK() {
				t.Errorf("findings %v", v.Findings)
			}
		})
	}
}

// Every loss by a fault is reported, and there are no other findings.
func TestClusterReportsWhatIsLost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		history string
		seed    uint64 // whose plan begins with most of the faults
		faults  []string
	}{
		{"Redis", Redis, 8, []string{
			"redis-older-snapshot", "redis-older-file", "redis-crashed-without-fsync", "redis-back-empty",
			"redis-back-empty-behind-a-node", "redis-emptied", "redis-replica-promoted",
		}},
		{"PostgreSQL", Postgres, 2, []string{
			"postgres-older-copy", "postgres-crashed-without-fsync", "postgres-standby-promoted", "postgres-no-insert",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := short(t)
			c.History, c.Seed, c.Faults, c.Lossy = test.history, test.seed, test.faults, true
			c.Length, c.Clients = 20*time.Second, 100
			needs(t, c)
			v := run(t, c)
			if !v.OK() {
				t.Errorf("findings %v", v.Findings)
			}
			if v.Losses.Messages == 0 || v.Losses.Reported == 0 {
				t.Errorf("losses %+v: the faults lost nothing", v.Losses)
			}
		})
	}
}

// Nothing depends on the nodes' clocks, and a command that Redis refuses leaves nothing
// half-written.
func TestClusterLosesNothingWithoutPermissionsAndWithWrongClocks(t *testing.T) {
	t.Parallel()
	c := short(t)
	c.History, c.Seed, c.Skew, c.Clients = Redis, 1310, time.Hour, 100
	c.Race = false // the standard library is built anew, once
	c.Faults = []string{
		"redis-no-xadd", "redis-no-hset", "redis-no-hincrby", "redis-no-set", "redis-no-pexpire",
		"redis-no-publish", "redis-no-evalsha", "node-killed",
	}
	needs(t, c)
	if v := run(t, c); !v.OK() {
		t.Errorf("findings %v", v.Findings)
	}
}

// needs skips a test whose servers are not installed. In CI it fails instead.
func needs(t *testing.T, c Config) {
	t.Helper()
	if os.Getenv("CI") != "" {
		return
	}
	if _, err := exec.LookPath("redis-server"); c.uses(Redis) && err != nil {
		t.Skipf("%v", err)
	}
	if _, err := postgresProgram("postgres"); c.uses(Postgres) && err != nil {
		t.Skipf("%v", err)
	}
}
