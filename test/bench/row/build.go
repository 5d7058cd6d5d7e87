package row

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat/test/bench/peer"
)

// module is the path of this module.
const module = "github.com/reto10/chat/test/bench"

// goPatience is how long the go tool may take to stop when it is asked to.
const goPatience = 10 * time.Second

// Programs are the paths of the servers' programs by the kinds they serve.
type Programs map[string]string

// Paths are those of the programs, each once.
func (p Programs) Paths() []string {
	return slices.Compact(slices.Sorted(maps.Values(p)))
}

// Build builds the programs that serve the kinds into a directory, with the go tool and
// further flags. The current directory must be inside this module. If the build fails, the
// error is one line with the first message; if ctx ends, it is the error of ctx.
func Build(ctx context.Context, dir string, kinds []string, flags ...string) (Programs, error) {
	programs := make(Programs)
	var packages []string
	for _, kind := range kinds {
		if !peer.Known(kind) {
			return nil, fmt.Errorf("building the servers: unknown kind %q", kind)
		}
		name := peer.Program(kind)
		programs[kind] = filepath.Join(dir, name)
		if source := "./server/" + name; !slices.Contains(packages, source) {
			packages = append(packages, source)
		}
	}
	if len(packages) == 0 { // which the go tool would take for the current directory
		return programs, nil
	}
	out, err := goTool(ctx, "", dir, "list", "-m", "-f", "{{.Dir}}", module)
	var refused *exec.ExitError
	switch {
	case errors.As(err, &refused):
		return nil, fmt.Errorf("building the servers: the current directory is not in their module, %s: %w", module, err)
	case err != nil:
		return nil, fmt.Errorf("building the servers: %w", err)
	}
	// Symbols and the commit are not needed; the modules are recorded anyway.
	args := slices.Concat([]string{"build", "-ldflags=-s -w", "-buildvcs=false", "-o", dir + string(filepath.Separator)}, flags, packages)
	if _, err := goTool(ctx, strings.TrimSpace(out), dir, args...); err != nil {
		return nil, fmt.Errorf("building the servers: %w", err)
	}
	return programs, nil
}

// goTool runs the go tool in a directory and returns its output. Its temporary files are in
// temp, because it may leave them there when it is interrupted.
func goTool(ctx context.Context, dir, temp string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "GOTMPDIR="+temp)
	// An interrupt, as from a terminal, makes it start no further compilers and end.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = goPatience
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var refused *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.As(err, &refused):
		return "", fmt.Errorf("go %s: %w: %s", args[0], err, complaint(stderr.String()))
	}
	return stdout.String(), err
}

// complaint returns the first line that the go tool printed, except a package's headline and
// downloads.
func complaint(printed string) string {
	for line := range strings.Lines(printed) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "go: downloading ") {
			return line
		}
	}
	return "no word why"
}
