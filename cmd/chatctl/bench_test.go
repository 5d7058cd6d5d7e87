package main

import (
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat/test/chatdtest"
)

// secretFile is the key of a server that startServer starts.
func secretFile(t testing.TB) string {
	t.Helper()
	return chatdtest.WriteFile(t, "secret", chatdtest.Secret)
}

// figures are the numbers in what bench prints.
type figures struct {
	sockets, published, delivered, owed, lost, repeated int
}

var (
	socketsLine   = regexp.MustCompile(`(?m)^sockets +(\d+) (?:opened in|of \d+ open)`)
	publishedLine = regexp.MustCompile(`(?m)^published +(\d+) messages of \d+ bytes in `)
	deliveredLine = regexp.MustCompile(`(?m)^delivered +(\d+) of (\d+), \S+ a second: (\d+) lost, (\d+) repeated$`)
	latencyLine   = regexp.MustCompile(`(?m)^latency +p50 \S+  p90 \S+  p99 \S+  max \S+$`)
	ackLine       = regexp.MustCompile(`(?m)^ack +p50 \S+  p90 \S+  p99 \S+  max \S+$`)
)

func readFigures(t testing.TB, report string) (f figures) {
	t.Helper()
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	sockets, published, delivered := socketsLine.FindStringSubmatch(report), publishedLine.FindStringSubmatch(report), deliveredLine.FindStringSubmatch(report)
	if sockets == nil || published == nil || delivered == nil || !latencyLine.MatchString(report) || !ackLine.MatchString(report) {
		t.Fatalf("figures are missing:\n%s", report)
	}
	f = figures{
		sockets: number(sockets[1]), published: number(published[1]),
		delivered: number(delivered[1]), owed: number(delivered[2]), lost: number(delivered[3]), repeated: number(delivered[4]),
	}
	return f
}

func TestBenchMeasures(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	tests := map[string]struct {
		env  []string
		args []string
		want figures
	}{
		"users of its own": {d.anybody(), []string{"-secret-file", secretFile(t), "-n", "40", "-rate", "100", "-for", "1s", "-size", "1000"},
			figures{sockets: 40, published: 100, delivered: 4000, owed: 4000}},
		"the one user": {d.as("admin"), []string{"-n", "5", "-rate", "50", "-for", "1s"},
			figures{sockets: 5, published: 50, delivered: 250, owed: 250}},
		"everyone's channel": {d.anybody(), []string{"-secret-file", secretFile(t), "-n", "3", "-rate", "20", "-for", "1s", "-everyone"},
			figures{sockets: 3, published: 20, delivered: 60, owed: 60}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := ctl(t).RunToEnd(t, test.env, append([]string{"bench"}, test.args...)...)
			if code != 0 {
				t.Fatalf("exit code %d, says %q", code, stderr)
			}
			got := readFigures(t, stdout)
			// A busy machine sends slightly less than the rate says.
			if short := test.want.published - got.published; short < 0 || short > test.want.published/4 {
				t.Errorf("published %d of %d", got.published, test.want.published)
			}
			test.want.published = got.published
			all := got.published * test.want.sockets
			test.want.delivered, test.want.owed = all, all
			if got != test.want {
				t.Errorf("figures %+v, want %+v, of\n%s", got, test.want, stdout)
			}
		})
	}
}

func TestBenchEndsEarlyWithWhatItHas(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	p := ctl(t).Begin(t, d.anybody(), "bench", "-secret-file", secretFile(t), "-n", "4", "-rate", "100", "-for", "1h")
	d.awaitOnline("bench-4", "")
	p.Await(regexp.MustCompile(`^\d+s: [1-9]\d* sent, [1-9]\d* delivered, latency p50 `)) // a line of progress
	p.Signal(syscall.SIGINT)
	if code := p.ExitCode(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	got := readFigures(t, p.Printed())
	if all := 4 * got.published; got.published < 100 || got.delivered != all || got.owed != all || got.lost != 0 || got.repeated != 0 {
		t.Errorf("figures %+v", got)
	}
}

func TestBenchShowsProgressInALineOfATerminal(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	x := ctl(t).AtTerminal(t, d.anybody(), "bench", "-secret-file", secretFile(t), "-n", "2", "-rate", "20", "-for", "1h")
	x.Await(regexp.MustCompile(`\r\d+s: [1-9]\d* sent, \d+ delivered, latency p50 [^\n]+\r`))
	x.Type("\x03")
	printed, code := x.End()
	if code != 0 || readFigures(t, printed).lost != 0 {
		t.Errorf("exit code %d, prints\n%s", code, printed)
	}
	x.Await(regexp.MustCompile(`\x1b\[K$`)) // it is gone
	if shown := x.Shown(); strings.Contains(shown, "\n") {
		t.Errorf("the line does not stay where it is: %q", shown)
	}
}

func TestBenchSaysWhatLimitsIt(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	_, stderr, code := ctl(t).RunToEnd(t, d.as("admin"), "bench", "-n", "17", "-for", "1s")
	if want := regexp.MustCompile(`^chatctl: socket 1\d of 17: the server allows this user no more sockets, by default 16: with -secret-file each socket has its own user\n$`); code != 1 || !want.MatchString(stderr) {
		t.Errorf("sockets of a user: exit code %d, says %q", code, stderr)
	}

	program := ctl(t)
	limited := exec.Command("bash", "-c", `ulimit -n 100; exec "$0" "$@"`, program.Path, "bench", "-secret-file", secretFile(t), "-n", "50")
	limited.Env = append(append(limited.Environ(), program.Env...), d.anybody()...)
	out, _ := limited.CombinedOutput()
	want := "chatctl: 51 sockets need 115 open files, and this process may have 100: raise the limit (ulimit -Hn, LimitNOFILE=), for the server, too\n"
	if string(out) != want || limited.ProcessState.ExitCode() != 1 {
		t.Errorf("open files: %v, says %q", limited.ProcessState, out)
	}
}

func TestBenchCountsWhatAnEndOfTheServerCosts(t *testing.T) {
	t.Parallel()
	addr := chatdtest.FreeAddr(t)
	d := restarted(t, addr)
	p := ctl(t).Begin(t, d.anybody(), "bench", "-secret-file", secretFile(t), "-n", "3", "-rate", "50", "-for", "1h")
	p.Await(regexp.MustCompile(`^\d+s: `))
	d.Kill()
	d = restarted(t, addr)
	d.awaitOnline("bench-1", "")
	d.awaitOnline("bench-2", "")
	d.awaitOnline("bench-3", "")
	d.awaitOnline("bench-admin", "")
	p.Signal(syscall.SIGTERM)
	p.ExitCode()
	report := p.Printed()
	if got := readFigures(t, report); got.repeated != 0 || got.published < 200 {
		t.Errorf("figures %+v", got)
	}
	if !regexp.MustCompile(`(?m)^broken +\d+ times`).MatchString(report) {
		t.Errorf("no word of the connections that broke:\n%s", report)
	}
}

func TestBenchEndsWhenItMaySendNoMore(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	p := ctl(t).Begin(t, d.anybody(), "bench", "-secret-file", secretFile(t), "-n", "3", "-rate", "100", "-for", "1h")
	p.Await(regexp.MustCompile(`^\d+s: `)) // all are there
	d.admin("kick", "bench-2")
	d.admin("kick", "bench-admin")
	if code, says := p.ExitCode(), p.Logged(); code != 1 || !strings.HasSuffix(says, "\nchatctl: the sender was disconnected: disconnected by an admin") {
		t.Errorf("exit code %d, says %q", code, says)
	}
	if report := p.Printed(); !regexp.MustCompile(`(?m)^ended +1 sockets, the first: disconnected by an admin$`).MatchString(report) {
		t.Errorf("it prints\n%s", report)
	}
}

func TestBenchIsInterruptedWhileItOpens(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	p := ctl(t).Begin(t, d.anybody(), "bench", "-secret-file", secretFile(t), "-n", "15000")
	d.awaitOnline("bench-64", "")
	p.Signal(syscall.SIGINT)
	if code := p.ExitCode(); code != 0 || !regexp.MustCompile(`(?m)^sockets +\d+ of 15000 open after `).MatchString(p.Printed()) {
		t.Errorf("exit code %d, prints\n%s", code, p.Printed())
	}
}

// If the server stalls, the latency includes the messages that became due meanwhile, even
// those not sent because too many acks were missing.
func TestBenchCountsTheTimeOfAServerThatStandsStill(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	const rate, still = 1000, 2 * time.Second
	p := ctl(t).Begin(t, d.anybody(), "bench", "-secret-file", secretFile(t), "-n", "1", "-rate", strconv.Itoa(rate), "-for", "5s")
	d.awaitOnline("bench-1", "")
	d.Signal(syscall.SIGSTOP)
	<-time.After(still)
	d.Signal(syscall.SIGCONT)
	p.ExitCode()
	report := p.Printed()
	m := regexp.MustCompile(`(?m)^latency .* p90 (\S+)`).FindStringSubmatch(report)
	if m == nil {
		t.Fatalf("no latencies in:\n%s", report)
	}
	// A third of the messages was due in the time before the last half second of it.
	if p90, err := time.ParseDuration(m[1]); err != nil || p90 < time.Second/2 {
		t.Errorf("p90 %v, %v, want half a second or more, of\n%s", p90, err, report)
	}
}

// Messages that are delivered after publishing ended count with their full latency.
func TestBenchCountsTheTimeThatDeliveringTakes(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	p := ctl(t).Begin(t, d.anybody(), "bench", "-secret-file", secretFile(t), "-n", "1", "-rate", "100", "-for", "1s")
	d.awaitOnline("bench-1", "")
	d.Signal(syscall.SIGSTOP)
	<-time.After(3 * time.Second)
	d.Signal(syscall.SIGCONT)
	p.ExitCode()
	m := regexp.MustCompile(`(?m)^delivered +(\d+) of \d+, (\S+) a second`).FindStringSubmatch(p.Printed())
	if m == nil {
		t.Fatalf("no word of what was delivered:\n%s", p.Printed())
	}
	n, _ := strconv.Atoi(m[1])
	rate, err := strconv.ParseFloat(m[2], 64)
	if took := float64(n) / rate; err != nil || n == 0 || took < 2.5 {
		t.Errorf("%d were delivered in %.2g s, of\n%s", n, took, p.Printed())
	}
}
