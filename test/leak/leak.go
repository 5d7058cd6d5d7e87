// Package leak fails a test binary that leaves goroutines behind.
package leak

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long goroutines may take to end.
const patience = 10 * time.Second

// Main runs the tests and exits; use it as the whole body of TestMain. Goroutines that are
// left some time after the last test are printed and fail the run.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that cleans up: it returns the exit code.
func Run(m interface{ Run() int }) int {
	code := m.Run()
	if code == 0 {
		if left := wait(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n\n%s\n", left)
			code = 1
		}
	}
	return code
}

func wait() (left string) {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause *= 2 {
		left = others()
		if left == "" || time.Now().After(deadline) {
			return left
		}
		<-time.After(pause)
	}
}

// others returns the stacks of all goroutines except those of every test binary.
func others() string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var found []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i == 0 || // this one
			strings.Contains(stack, "testing.(*F).Fuzz") || strings.Contains(stack, "os/signal.") ||
			strings.Contains(stack, "testing.runFuzzing") || strings.Contains(stack, "internal/fuzz.") {
			continue
		}
		found = append(found, stack)
	}
	return strings.Join(found, "\n\n")
}
