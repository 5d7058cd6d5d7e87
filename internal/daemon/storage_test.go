package daemon

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheCommandLineIsShownWithoutPasswords(t *testing.T) {
	got := redactArgs(strings.Fields("-addr :443 -registry redis://:hunter2@redis --history=postgres://chat:hunter2@db/chat " +
		"-registry -history --registry memory -history=off registry redis://example.com"))
	want := strings.Fields("-addr :443 -registry redis:REDACTED --history=postgres:REDACTED " +
		"-registry -history --registry memory -history=off registry redis://example.com")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command line (-want +got):\n%s", diff)
	}
}
