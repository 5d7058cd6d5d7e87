package main

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

func TestSendWaitsForAServerThatIsRestarted(t *testing.T) {
	t.Parallel()
	addr := chatdtest.FreeAddr(t)
	d := restarted(t, addr)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	program := ctl(t)
	program.Input = read
	p := program.Begin(t, d.as("admin"), "send", "-ids", "-")
	read.Close() // the process has its own
	fmt.Fprintln(write, "before")
	p.AwaitPrinted(regexp.MustCompile(`^1-`))
	d.Kill()
	// A line that was written to a dead connection may be stored, so send would stop. Here send
	// has noticed that the connection is dead.
	wstest.Eventually(t, "the connection to end", func() bool { return !connected(t, addr) })
	fmt.Fprintln(write, "meanwhile")
	d = restarted(t, addr)
	wstest.Eventually(t, "the line to be sent", func() bool { return cmp.Equal(d.contents(""), []string{"meanwhile"}) })
	write.Close()
	if code := p.ExitCode(); code != 0 || p.Logged() != "" {
		t.Errorf("exit code %d, says %q", code, p.Logged())
	}
}

// connected reports whether a process on this machine has a connection to addr that it has
// not closed (proc_pid_net(5)).
func connected(t testing.TB, addr string) bool {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const established, closedByPeer = "01", "08"
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line) // number, local address, remote address, state…
		if len(fields) > 3 && strings.HasSuffix(fields[2], fmt.Sprintf(":%04X", number)) &&
			(fields[3] == established || fields[3] == closedByPeer) {
			return true
		}
	}
	return false
}
