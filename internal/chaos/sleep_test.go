package chaos

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What ends while a machine is suspended has ended when it goes on, though the clock
// that timers run by stood still.
func TestWhatEndsInASuspendedMachineHasEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	overlay, err := clockOverlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "sleep")
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", program, "./testdata/sleep").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := []string{
		"a command of an expired token is carried out: false",
		"messages in the history: 0",
		"the idle socket ends as unauthenticated: true",
		"and soon: true",
		"keys are fetched again: true",
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(out)), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
