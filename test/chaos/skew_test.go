package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A program built with the overlay has another clock and still measures durations correctly.
func TestProgramsClockIsOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	overlay, err := clockOverlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(`package main

import "time"

func main() {
	now := time.Now()
	println(now.Unix(), time.Since(now) < time.Minute && time.Until(now) > -time.Minute)
}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "clock")
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, offset := range []time.Duration{-time.Hour, 0, time.Hour} {
		t.Run(fmt.Sprint(offset), func(t *testing.T) {
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), clockEnv(offset))
			want := time.Now().Add(offset)
			out, err := cmd.CombinedOutput() // println writes to stderr
			if err != nil {
				t.Fatal(err)
			}
			clock, durations, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
			seconds, err := strconv.ParseInt(clock, 10, 64)
			if err != nil {
				t.Fatalf("it says %q", out)
			}
			if off := time.Unix(seconds, 0).Sub(want).Abs(); off > time.Minute {
				t.Errorf("its clock is off by %v", off)
			}
			if durations != "true" {
				t.Errorf("durations are off, too: %q", out)
			}
		})
	}
}
