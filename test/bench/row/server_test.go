package row

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat/test/bench/load"
	"github.com/reto10/chat/test/bench/peer"
)

// rowLimit bounds a quick run of a row.
const rowLimit = 2 * time.Minute

// limit bounds a test of a server.
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

// testServer has some sockets receive messages and send commands.
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
	if rate := samplingRate(ctx, t, tr.Control); rate != "0" {
		t.Errorf("allocations are sampled at a rate of %s, want none", rate)
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

// samplingRate is that which a server's heap profile begins with.
func samplingRate(ctx context.Context, t *testing.T, control string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+control+"/debug/pprof/heap?debug=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	head, err := bufio.NewReader(res.Body).ReadString('\n')
	_, rate, found := strings.Cut(strings.TrimSpace(head), "@ heap/")
	if err != nil || !found {
		t.Fatalf("the heap profile begins with %q, %v", head, err)
	}
	return rate
}

func TestServerWithHeapProfile(t *testing.T) {
	t.Parallel()
	dependOnServers(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, programs["write"], "-profile")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready peer.Ready
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		t.Error(err)
	} else if samplingRate(ctx, t, ready.Control) == "0" {
		t.Error("with -profile allocations are not sampled")
	}
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
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
