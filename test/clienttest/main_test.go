package clienttest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat/internal/daemon"
)

const (
	// patience is how long a test waits for what has to come.
	patience = 30 * time.Second
	// lifetime bounds every process, whatever a test does with it.
	lifetime = 3 * time.Minute
)

// program is the path of the chatd under test.
var program string

// linked makes the code of chatd a part of this binary too. It is not run here; but
// go test looks at the binary to tell whether a result it has kept still holds.
var linked any

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	linked = daemon.Main
	dir, err := os.MkdirTemp("", "clienttest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "chatd")
	if err := build(program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if left := leftBehind(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n\n%s\n", left)
		return 1
	}
	return code
}

// build makes chatd, with the race detector if these tests have it.
func build(output string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := []string{"build", "-buildvcs=false", "-o", output}
	if raceEnabled() {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/chatd")...)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building chatd: %w\n%s", err, out)
	}
	return nil
}

func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	for _, setting := range info.Settings {
		if setting.Key == "-race" {
			return setting.Value == "true"
		}
	}
	return false
}

// leftBehind returns the stacks of the goroutines, beside its own, that do not
// end.
func leftBehind() (stacks string) {
	buf := make([]byte, 1<<20)
	deadline := time.Now().Add(patience)
	for {
		_, stacks, _ = strings.Cut(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		if stacks == "" || time.Now().After(deadline) {
			return stacks
		}
		<-time.After(10 * time.Millisecond)
	}
}
