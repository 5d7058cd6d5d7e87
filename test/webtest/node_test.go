package webtest

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat/test/chatdtest"
)

// TestChatJSInNode runs the tests in node/, which are in JavaScript, start their own servers
// and verify the certificate.
func TestChatJSInNode(t *testing.T) {
	t.Parallel()
	node := chatdtest.Needs(t, "node")
	if err := exec.Command(node, "-e", "").Run(); err != nil {
		t.Fatal(err)
	}
	passwords, err := json.Marshal(chatdtest.Passwords)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("node/*.test.js")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in node/: %v", err)
	}
	type run struct{ name, socket string }
	var runs []run
	for _, file := range files {
		runs = append(runs, run{filepath.Base(file), "ws"})
	}
	args := []string{"--test", "--test-reporter=spec"}
	// The WebSocket that Node has itself, as npm's, for what depends on it most. In
	// Node 20 it is behind a flag; Node 18, Debian 12's, has none.
	flag := "--experimental-websocket"
	if exec.Command(node, flag, "-e", "WebSocket.OPEN").Run() == nil {
		args = append(args, flag)
		for _, name := range []string{"chat.test.js", "ending.test.js", "resume.test.js"} {
			runs = append(runs, run{name, "node"})
		}
	}
	for _, r := range runs {
		t.Run(r.name+"/"+r.socket, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, node, append(slices.Clone(args), r.name)...)
			cmd.Dir = "node"
			cmd.Env = append(os.Environ(),
				"WEBSOCKET="+r.socket,
				"CHATD="+chatd.Path,
				"CHATD_CLUSTER="+cluster.Path,
				"TLS_CERT="+certificate,
				"TLS_KEY="+certificateKey,
				"NODE_EXTRA_CA_CERTS="+certificate,
				"USERS="+chatdtest.WriteFile(t, "users", chatdtest.Users),
				"SECRET="+chatdtest.WriteFile(t, "secret", chatdtest.Secret),
				"PASSWORDS="+string(passwords),
			)
			// With all that it started, should it not end by itself.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				t.Errorf("%v\n%s", err, &out)
			} else {
				t.Logf("%s", &out)
			}
		})
	}
}
