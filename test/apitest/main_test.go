package apitest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/leak"
)

// The programs under test.
var chatd, cluster chatdtest.Program

// linked makes the code of chatd a part of this binary too. It is not run here; but
// go test looks at the binary to tell whether a result it has kept still holds.
var linked any

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	linked = daemon.Main
	dir, err := os.MkdirTemp("", "chat-apitest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for name, p := range map[string]*chatdtest.Program{"chatd": &chatd, "chatd-cluster": &cluster} {
		p.Path = filepath.Join(dir, name)
		if err := build(name, p.Path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return leak.Run(m)
}

// build makes a program of cmd/, with the race detector if these tests have it.
func build(name, output string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := []string{"build", "-buildvcs=false", "-o", output}
	if raceEnabled() {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = filepath.Join("..", "..", "cmd", name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	return nil
}

func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
