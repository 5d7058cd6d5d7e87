package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// A rolling deployment: one node after the other shuts down and starts again, while users
// join and leave. No node logs a warning.
func TestARollingDeploymentIsNoWarning(t *testing.T) {
	t.Parallel()
	redis, postgres := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	secret := chatdtest.WriteFile(t, "secret", chatdtest.Secret)
	begin := func() *chatdtest.Process {
		return program(t).Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL(), "CHATD_HISTORY=" + postgres.PostgresURL()},
			"-plaintext", "-drain", "1s", "-secret-file", secret)
	}
	nodes := []*chatdtest.Process{begin(), begin()}
	var all []*chatdtest.Process
	all = append(all, nodes...)
	token := nodes[0].Token("admin")
	for i := range 8 {
		at := i % len(nodes)
		var sockets []*wstest.Client
		for _, node := range nodes {
			for range 3 {
				s := node.Connect(token)
				s.Want("welcome")
				sockets = append(sockets, s)
			}
		}
		post(t, nodes[at], token, "still here")
		for _, s := range sockets[:4] {
			s.Close() // joins and leaves are read while the node ends
		}
		nodes[at].Signal(syscall.SIGTERM)
		for _, s := range sockets[4:] {
			s.Close()
		}
		if code := nodes[at].ExitCode(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		nodes[at] = begin()
		all = append(all, nodes[at])
	}
	for _, node := range nodes {
		node.Signal(syscall.SIGTERM)
		node.End()
	}
	for _, node := range all {
		for line := range strings.Lines(node.Logged()) {
			if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
				t.Errorf("logged: %s", line)
			}
		}
	}
}
