package chaos

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever expires while a machine is suspended has expired when it resumes, although the
// clock of timers stood still.
func TestWhatEndsInASuspendedMachineHasEnded(t *testing.T) {
	wantOutput(t, "./testdata/sleep",
		"a command of an expired token is carried out: false",
		"messages in the history: 0",
		"the idle socket ends as unauthenticated: true",
		"and soon: true",
		"keys are fetched again: true",
	)
}

func TestMessagesEndAtTheirAgeThoughTheClockIsSetBack(t *testing.T) {
	wantOutput(t, "./testdata/clockset",
		"messages from before the clock was set: 0",
		"messages from after it: 0",
		"new messages: 1",
	)
}

// wantOutput runs a program whose clock can jump, and compares its lines.
func wantOutput(t *testing.T, source string, want ...string) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	overlay, err := clockOverlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(out)), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
