package row

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat/internal/bench/load"
	"github.com/reto10/chat/internal/bench/peer"
)

// limit is how long a test of a server may take.
const limit = 30 * time.Second

func newLab(t *testing.T) *Lab {
	return &Lab{Programs: programs, Secret: make([]byte, 32), ServerCore: -1, Log: t.Logf}
}

func TestServers(t *testing.T) {
	dependOnServers(t)
	for _, kind := range peer.Kinds {
		for name, tls := range map[string]bool{"plain": false, "TLS": true} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				testServer(t, config{kind: kind, tls: tls})
			})
		}
	}
}

// testServer has some sockets get messages and send commands.
func testServer(t *testing.T, c config) {
	const sockets, burst = 3, 2
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	stamped := 0
	inspect := func(_ *load.Socket, message []byte) {
		if _, _, ok := peer.Stamp(message); ok {
			stamped++
		}
	}
	l := newLab(t)
	tr, err := l.open(ctx, c, crowd{inspect: inspect})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = tr.close()
		}
	}()
	if err := tr.connect(ctx, sockets); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.deliver(ctx, burst); err != nil {
		t.Fatal(err)
	}
	if c.kind != "write" { // which reads nothing
		if _, err := l.commands(ctx, tr, sockets, 1); err != nil {
			t.Fatalf("commands: %v", err)
		}
	}
	closed = true
	if err := tr.close(); err != nil {
		t.Error(err)
	}
	if code := tr.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the server exits with %d when its standard input ends, want 0", code)
	}
	if stamped != sockets*burst {
		t.Errorf("%d messages with a stamp, want %d", stamped, sockets*burst)
	}
}

func TestServerRefusesOthersKinds(t *testing.T) {
	t.Parallel()
	dependOnServers(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, programs["gws"], "-kind", "melody").CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), "gws: -kind: unknown server") {
		t.Errorf("gws -kind melody: %v: %s", err, out)
	}
}
