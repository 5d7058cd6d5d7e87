package chatdtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/reto10/chat/test/leak"
)

// Build compiles programs of cmd/, by name, into a directory, and sets their paths.
// They have the race detector if the test binary has it. The root is the path of the
// repository.
func Build(root, dir string, programs map[string]*Program) error {
	for name, p := range programs {
		p.Path = filepath.Join(dir, name)
		if err := build(filepath.Join(root, "cmd", name), p.Path); err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
	}
	return nil
}

func build(from, output string) error {
	output, err := filepath.Abs(output)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := []string{"build", "-buildvcs=false", "-o", output}
	if raceEnabled() {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = from
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// Main builds programs as Build does, runs the tests of a binary and looks for
// goroutines that they left behind. It returns what to exit with.
func Main(root string, programs map[string]*Program, m interface{ Run() int }) int {
	dir, err := os.MkdirTemp("", "chat-programs-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }() // it is a temporary directory
		err = Build(root, dir, programs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return leak.Run(m)
}
