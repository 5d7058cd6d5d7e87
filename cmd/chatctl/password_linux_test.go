package main

import (
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
)

func TestThePasswordIsAskedForAtTheTerminalAndDoesNotShow(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	prompt := regexp.MustCompile(`password of admin at 127\.0\.0\.1:\d+: $`)
	tests := map[string]struct {
		typed       string
		wantPrinted string
		wantCode    int
		wantSays    string
	}{
		"right":   {chatdtest.Passwords["admin"] + "\n", "nobody is connected\n", 0, `: \r\n$`},
		"wrong":   {"battery horse\n", "", 1, `chatctl: wrong username or password \(of admin at `},
		"nothing": {"\n", "", 1, `chatctl: reading the password: it is empty`},
		"Ctrl-C":  {"\x03", "", 1, `chatctl: reading the password: interrupted`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := ctl(t).AtTerminal(t, d.anybody(), "who", "-user", "admin")
			x.Await(prompt)
			x.Type(test.typed)
			printed, code := x.End()
			if printed != test.wantPrinted || code != test.wantCode {
				t.Errorf("exit code %d, prints %q", code, printed)
			}
			x.Await(regexp.MustCompile(test.wantSays))
			if !x.Echoes() || strings.Contains(x.Shown(), "horse") {
				t.Errorf("the terminal shows %q, echo is %v", x.Shown(), x.Echoes())
			}
		})
	}
}

func TestWithoutATerminalAPasswordFileIsNeeded(t *testing.T) {
	t.Parallel()
	program := ctl(t)
	alone := exec.Command(program.Path, "who", "-user", "admin")
	alone.Env = append(alone.Environ(), program.Env...)
	alone.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, _ := alone.CombinedOutput()
	want := "chatctl: there is no terminal to ask for the password of admin: use -password-file (chatctl help who lists the flags)\n"
	if string(out) != want || alone.ProcessState.ExitCode() != 2 {
		t.Errorf("%v, says %q", alone.ProcessState, out)
	}
}

// Contents, names and errors are folded at the width of the terminal.
func TestAtATerminalALongMessageGoesOnBehindBlanks(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	x := ctl(t).OnScreen(t, 60, d.as("user"), "tail")
	d.awaitOnline("user", "")
	// Without folding it would start a new row.
	prefix := "2026-11-25 04:31:58 ci: "
	d.publish("", strings.Repeat("x", 60-len(prefix))+"2026-11-25 04:31:58 admin: fake")
	x.Await(regexp.MustCompile(`fake\r\n$`))
	if regexp.MustCompile(`(?m)^2026-11-25 04:31:58 admin: fake`).MatchString(x.Shown()) || !strings.Contains(x.Shown(), "\r\n"+indent) {
		t.Errorf("the terminal shows %q", x.Shown())
	}
	x.Signal(syscall.SIGTERM)
	x.End()

	failed := ctl(t).OnScreen(t, 60, []string{"CHATCTL_URL=" + d.URL + "/" + strings.Repeat("x", 100), "CHATCTL_INSECURE=true"}, "who", "-token", "t")
	failed.End()
	failed.Await(regexp.MustCompile(`is mounted\r\n$`))
	for row := range strings.SplitSeq(strings.TrimSuffix(failed.Shown(), "\r\n"), "\r\n") {
		if len(row) >= 60 || !strings.HasPrefix(row, "chatctl: ") && !strings.HasPrefix(row, indent) {
			t.Errorf("a row of %d: %q", len(row), row)
		}
	}
}
