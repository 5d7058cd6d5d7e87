package terminal_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/reto10/chat/internal/terminal"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/leak"
)

// asAsker makes the test binary ask for a password and print the result.
const asAsker = "TEST_BINARY_ASKS"

func TestMain(m *testing.M) {
	if os.Getenv(asAsker) == "" {
		leak.Main(m)
		return
	}
	password, err := terminal.ReadPassword("password: ")
	switch {
	case errors.Is(err, terminal.ErrNone):
		os.Exit(3)
	case errors.Is(err, terminal.ErrInterrupted):
		os.Exit(4)
	case err != nil:
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%q", password)
}

func asker(t *testing.T) chatdtest.Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return chatdtest.Program{Path: self, Env: []string{asAsker + "=1"}}
}

var prompt = regexp.MustCompile(`password: $`)

func TestAPasswordIsReadWithoutShowing(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		keys     string
		want     string
		wantCode int
	}{
		"typed":        {"correct horse\n", `"correct horse"`, 0},
		"mended":       {"wrr\x7f\x7fo\n", `"wo"`, 0},
		"empty":        {"\n", `""`, 0},
		"end of file":  {"\x04", `""`, 0},
		"no line end":  {"secret\x04\x04", `"secret"`, 0},
		"Ctrl-Z first": {"\x1asecret\n", `"secret"`, 0},
		"Ctrl-C":       {"secret\x03", "", 4},
		`Ctrl-\`:       {"secret\x1c", "", 4},
		"too long":     {strings.Repeat("secret", terminal.MaxLine/6+1) + "\n", "the line is longer than 1024 bytes\n", 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := asker(t).AtTerminal(t, nil)
			x.Await(prompt)
			if x.Echoes() {
				t.Error("what is typed shows")
			}
			x.Type(test.keys)
			if printed, code := x.End(); printed != test.want || code != test.wantCode {
				t.Errorf("got %s, exit code %d; want %s, %d", printed, code, test.want, test.wantCode)
			}
			if !x.Echoes() {
				t.Error("the terminal is not as it was")
			}
			if strings.Contains(x.Shown(), "secret") || strings.Contains(x.Shown(), "horse") {
				t.Errorf("the password is on the screen: %q", x.Shown())
			}
		})
	}
}

func TestASignalLeavesTheTerminalAsItWas(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			x := asker(t).AtTerminal(t, nil)
			x.Await(prompt)
			x.Signal(sig)
			if _, code := x.End(); code != 4 {
				t.Errorf("exit code %d", code)
			}
			if !x.Echoes() {
				t.Error("the terminal is not as it was")
			}
		})
	}
}

func TestWithoutATerminalNobodyIsAsked(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	alone := exec.Command(self)
	alone.Env = append(os.Environ(), asAsker+"=1")
	alone.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a new session has no terminal
	if exit := new(exec.ExitError); !errors.As(alone.Run(), &exit) || exit.ExitCode() != 3 {
		t.Errorf("it ends with %v", alone.ProcessState)
	}
}

func TestADeviceIsNoTerminal(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if terminal.Is(null) {
		t.Errorf("%s is one", os.DevNull)
	}
}
