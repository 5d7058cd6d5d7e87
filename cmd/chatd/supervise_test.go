package main

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

var draining = regexp.MustCompile(`msg=draining`)

// What supervisors do to a server: signals in pairs, and logs that nobody reads.

func TestAPairOfSignalsDrainsLikeOne(t *testing.T) {
	t.Parallel()
	d := start(t, nil, "-drain", "1m")
	sockets := map[string]*wstest.Client{"admin": d.Connect(d.tokenOf("admin")), "user": d.Connect(d.tokenOf("user"))}
	for _, s := range sockets {
		s.Want("welcome")
	}
	idle := d.Connect(d.tokenOf("user")) // which does not answer for a while
	d.Signal(syscall.SIGTERM)
	d.Await(draining)
	d.Signal(syscall.SIGTERM)
	d.Await(regexp.MustCompile(`level=INFO msg="still draining`))
	for name, s := range sockets {
		if code := s.CloseCode(); code != 1001 {
			t.Errorf("%s closed with %d, want 1001", name, code)
		}
	}
	if code := idle.CloseCode(); code != 1001 {
		t.Errorf("the idle one closed with %d, want 1001", code)
	}
	if code := d.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestALaterSIGTERMEndsItAtOnce(t *testing.T) {
	t.Parallel()
	d := start(t, nil, "-drain", "1m")
	d.Connect(d.tokenOf("user")) // never reads, and so keeps the server waiting
	d.Signal(syscall.SIGTERM)
	d.Await(draining)
	<-time.After(2100 * time.Millisecond)
	d.Signal(syscall.SIGTERM)
	if code := d.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

func TestTimeoutOfCoreutilsLeavesTimeToDrain(t *testing.T) {
	t.Parallel()
	timeout, self := chatdtest.Needs(t, "timeout"), program(t)
	env := append(self.Env, "CHATD_ADDR=127.0.0.1:0", "CHATD_USERS="+write(t, "users", chatdtest.Users))
	d := &process{chatdtest.Program{Path: timeout}.Run(t, env, "--signal=TERM", "5", self.Path), t}
	s := d.Connect(d.tokenOf("user"))
	if code := s.CloseCode(); code != 1001 {
		t.Errorf("closed with %d, want 1001", code)
	}
	if code := d.ExitCode(); code != 124 || strings.Contains(d.Logged(), "at once by") {
		t.Errorf("timeout ended with %d:\n%s", code, d.Logged())
	}
}

func TestItGoesOnWhenNobodyReadsWhatItWrites(t *testing.T) {
	t.Parallel()
	self := program(t)
	users, secret := write(t, "users", chatdtest.Users), write(t, "secret", chatdtest.Secret)
	for name, args := range map[string][]string{
		"the log":            {"-users", users, "-secret-file", secret},
		"the banner as well": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(self.Path, append([]string{"-addr", "127.0.0.1:0", "-plaintext", "-log-level", "debug"}, args...)...)
			cmd.Env = append(os.Environ(), self.Env...)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				cmd.Process.Kill()
				cmd.Wait()
			})
			stdout.Close() // before the banner
			var base string
			for lines := bufio.NewScanner(stderr); base == "" && lines.Scan(); {
				if m := chatdtest.Listening.FindStringSubmatch(lines.Text()); m != nil {
					base = m[1]
				}
			}
			stderr.Close()
			client := &http.Client{Transport: new(http.Transport)}
			t.Cleanup(client.CloseIdleConnections)
			for range 3 {
				resp, err := client.Get(base + "/healthz") // which is logged
				if err != nil {
					t.Fatalf("%v; ended: %v", err, cmd.ProcessState)
				}
				resp.Body.Close()
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("ended with %v", err)
			}
		})
	}
}
