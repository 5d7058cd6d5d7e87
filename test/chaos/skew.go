package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockVariable has the seconds that a node's clock is off.
const clockVariable = "CHAOS_CLOCK_OFFSET"

// clockSource is added to package time.
const clockSource = `package time

import "syscall"

// clockOffset is the seconds that this program's clock is off.
var clockOffset = func() int64 {
	text, _ := syscall.Getenv("` + clockVariable + `")
	var seconds, sign int64 = 0, 1
	for i := range len(text) {
		switch c := text[i]; {
		case i == 0 && c == '-':
			sign = -1
		case c >= '0' && c <= '9':
			seconds = 10*seconds + int64(c-'0')
		default:
			panic("` + clockVariable + ` is not a number of seconds")
		}
	}
	return sign * seconds
}()

// JumpClock sets the clock forward, as on a machine that was suspended, or back. Code that
// reads the clock at that moment may see the time before or after the jump.
func JumpClock(seconds int64) { clockOffset += seconds }
`

// Now of package time, with and without the jump.
const (
	clockRead   = "\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	clockShifts = clockRead + "\tsec += clockOffset\n"
)

// clockOverlay writes a file for go build -overlay. A program built with it has the clock of
// clockVariable. A preloaded library (faketime) would not work, because Go programs call the
// kernel themselves. Durations stay correct: they use another clock.
func clockOverlay(dir string) (file string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("finding the standard library: %w", err)
	}
	pkg := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(pkg, "time.go"))
	if err != nil {
		return "", err
	}
	shifted := strings.Replace(string(source), clockRead, clockShifts, 1)
	if shifted == string(source) {
		return "", errors.New("this Go's time.Now reads the clock in another way: see skew.go")
	}
	added, err := format.Source([]byte(clockSource))
	if err != nil {
		return "", err
	}
	replace := make(map[string]string)
	for name, text := range map[string]string{"time.go": shifted, "chaos_clock.go": string(added)} {
		replace[filepath.Join(pkg, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, b, 0o644)
}

// clockOf returns how far the nth node's clock is off: one is behind, one ahead, one correct.
func (c Config) clockOf(nth int) time.Duration {
	return []time.Duration{-c.Skew, c.Skew, 0}[nth%3]
}

// clockEnv returns the environment that sets a node's clock.
func clockEnv(offset time.Duration) string {
	return clockVariable + "=" + strconv.FormatInt(int64(offset/time.Second), 10)
}
