package row

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat/test/bench/peer"
	"github.com/reto10/chat/test/bench/report"
)

// programs are those of all servers.
var programs Programs

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if programs, err = Build(ctx, dir, slices.Concat(peer.Kinds, peer.Backed), raceFlags()...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Servers with the race detector would each sleep for a second at their end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=1 "+os.Getenv("GORACE")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// raceFlags build the servers with the race detector if these tests have it.
func raceFlags() []string {
	info, _ := debug.ReadBuildInfo()
	if slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return []string{"-race"}
	}
	return nil
}

// dependOnServers makes a test read the servers' sources. go test caches a result until a file
// that the test read changes, and does not know which files were built.
func dependOnServers(t *testing.T) {
	t.Helper()
	sources, err := filepath.Glob("../server/*/*.go")
	shared, _ := filepath.Glob("../server/internal/*/*.go")
	sources = append(sources, shared...)
	if err != nil || len(sources) == 0 {
		t.Fatalf("no servers' sources: %v", err)
	}
	for _, source := range append(sources, "../go.mod", "../go.sum") {
		if _, err := os.Stat(source); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServersLinkTheirOwnLibraryAlone(t *testing.T) {
	dependOnServers(t)
	// The only libraries that each is about; melody uses gorilla's.
	const ours, itsOwn, gorilla = "github.com/reto10/chat", "nhooyr.io/websocket", "github.com/gorilla/websocket"
	const gws, melody = "github.com/lxzan/gws", "github.com/olahol/melody"
	const nhooyr, centrifuge = "github.com/coder/websocket", "github.com/centrifugal/centrifuge"
	const redis, sql = ours + "/redisregistry", ours + "/sqlhistory"
	libraries := []string{ours, itsOwn, gorilla, gws, melody, nhooyr, centrifuge, redis, sql}
	want := map[string][]string{
		"chat":           {ours, itsOwn},
		"write":          nil,
		"gws":            {gws},
		"gorilla":        {gorilla},
		"gorilla-joined": {gorilla},
		"melody":         {gorilla, melody},
		"nhooyr":         {nhooyr},
		"centrifuge":     {centrifuge},

		"chat-redis":       {ours, itsOwn, redis},
		"chat-sqlite":      {ours, itsOwn, sql},
		"centrifuge-redis": {centrifuge},
	}
	for _, kind := range slices.Concat(peer.Kinds, peer.Backed) {
		info, err := buildinfo.ReadFile(programs[kind])
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		var linked []string
		for _, m := range info.Deps {
			if slices.Contains(libraries, m.Path) {
				linked = append(linked, m.Path)
			}
		}
		slices.Sort(linked)
		if slices.Sort(want[kind]); !slices.Equal(linked, want[kind]) {
			t.Errorf("%s links %q, want %q", kind, linked, want[kind])
		}
	}
}

func TestReportTellsTheServersModules(t *testing.T) {
	dependOnServers(t)
	here, err := report.Here(programs.Paths()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"github.com/centrifugal/centrifuge", "github.com/coder/websocket", "github.com/gorilla/websocket",
		"github.com/lxzan/gws", "github.com/olahol/melody", "nhooyr.io/websocket"} {
		if here.Versions[module] == "" {
			t.Errorf("no version of %s among %v", module, here.Versions)
		}
	}
	if _, err := report.Here("no-such-program"); err == nil {
		t.Error("a program that cannot be read is no error")
	}
}

func TestBuildOutsideTheModule(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := Build(t.Context(), t.TempDir(), []string{"write"})
	if err == nil || !strings.Contains(err.Error(), "not in their module") || strings.Contains(err.Error(), "\n") {
		t.Errorf("Build elsewhere: %v, want one line that says so", err)
	}
}

func TestBuildRefusesAnUnknownKind(t *testing.T) {
	if _, err := Build(t.Context(), t.TempDir(), []string{"melodious"}); err == nil {
		t.Error("Build of an unknown kind is no error")
	}
}

func TestBuildOfNone(t *testing.T) {
	dir := t.TempDir()
	built, err := Build(t.Context(), dir, nil)
	files, _ := os.ReadDir(dir)
	if err != nil || len(built) > 0 || len(files) > 0 {
		t.Errorf("Build of no kinds = %v, %v, with %d files, want none", built, err, len(files))
	}
}

func TestBuildFails(t *testing.T) {
	_, err := Build(t.Context(), t.TempDir(), []string{"write"}, "-no-such-flag")
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") || strings.Contains(err.Error(), "\n") {
		t.Errorf("Build with a flag that go does not know: %v, want one line that names it", err)
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, t.TempDir(), []string{"write"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Build with a context that has ended: %v, want %v", err, context.Canceled)
	}
}

func TestComplaint(t *testing.T) {
	for printed, want := range map[string]string{
		"go: downloading example.org/a v1.0.0\n# example.org/b\nb.go:1:2: undefined: c\nb.go:3:4: undefined: d\n": "b.go:1:2: undefined: c",
		"go: no such module\n": "go: no such module",
		"":                     "no word why",
	} {
		if got := complaint(printed); got != want {
			t.Errorf("complaint(%q) = %q, want %q", printed, got, want)
		}
	}
}
