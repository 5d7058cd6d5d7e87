package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestHashAsksTwiceAtATerminalAndShowsNothing(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		again    string
		wantLine string
		wantCode int
		wantSays string
	}{
		"the same again": {"correct horse\n", `^ana:\$2a\$\S+\n$`, 0, `again: \r\n$`},
		"another again":  {"correct house\n", `^$`, 1, `chatd: reading the password: the two passwords differ`},
		"Ctrl-C":         {"\x03", `^$`, 1, `chatd: reading the password: interrupted`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := program(t).AtTerminal(t, nil, "hash", "-user", "ana")
			x.Await(regexp.MustCompile(`password of ana: $`))
			x.Type("correct horse\n")
			x.Await(regexp.MustCompile(`again: $`))
			x.Type(test.again)
			printed, code := x.End()
			if code != test.wantCode || !regexp.MustCompile(test.wantLine).MatchString(printed) {
				t.Errorf("exit code %d, prints %q", code, printed)
			}
			x.Await(regexp.MustCompile(test.wantSays))
			if !x.Echoes() || strings.Contains(x.Shown(), "horse") {
				t.Errorf("the terminal shows %q, echo is %v", x.Shown(), x.Echoes())
			}
		})
	}
}
