package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

func TestTailShowsWhatComes(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	p := d.tail("user", "ops", "-channel", "ops", "-channel", "ops")
	d.publish("", "to everyone")
	d.publish("ops", "to ops")
	d.publish("dev", "to others")
	d.publish("@admin", "to somebody else")
	d.publish("@user", "to user alone")
	p.AwaitPrinted(is("@user admin: to user alone"))
	want := []string{"admin: to everyone", "#ops admin: to ops", "@user admin: to user alone"}
	if diff := cmp.Diff(want, printedLines(p)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.ExitCode(); code != 0 || p.Logged() != "" {
		t.Errorf("SIGTERM: exit code %d, says %q", code, p.Logged())
	}
}

func TestTailInJSONIsAsInTheProtocol(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	kept := d.publish("ops", "kept")
	p := d.tail("user", "ops", "-json", "-presence", "-channel", "ops", "-n", "5")
	live := d.publish("", "live")
	p.AwaitPrinted(regexp.MustCompile(`"content":"live"`))
	p.AwaitPrinted(regexp.MustCompile(`"user_joined","username":"user","role":"user","channel":"ops"`))
	type event struct{ Type, ID, Channel, Sender, Content, Username string }
	var got []event
	for line := range strings.Lines(p.Printed()) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if !regexp.MustCompile(`"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`).MatchString(line) {
			t.Errorf("no time in %s", line)
		}
		if e.Type == "message" {
			got = append(got, e)
		}
	}
	want := []event{
		{Type: "message", ID: kept, Channel: "ops", Sender: "admin", Content: "kept"},
		{Type: "message", ID: live, Sender: "admin", Content: "live"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	p.Signal(syscall.SIGINT)
	if code := p.ExitCode(); code != 0 || p.Logged() != "" {
		t.Errorf("SIGINT: exit code %d, says %q", code, p.Logged())
	}
}

func TestTailTellsOfPresence(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	p := d.tail("admin", "", "-presence")
	other := d.tail("user", "")
	p.AwaitPrinted(is(`\* user joined`))
	other.Kill()
	p.AwaitPrinted(is(`\* user left`))
}

func TestTailBeginsWhereItIsTold(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	ids := map[string]string{}
	for _, content := range []string{"one", "two", "three"} {
		ids[content] = d.publish("", content)
		ids["ops "+content] = d.publish("ops", "ops "+content)
	}
	tests := map[string]struct {
		args []string
		want []string
	}{
		"live":                       {[]string{"-channel", "ops"}, nil},
		"no last ones":               {[]string{"-n", "0"}, nil},
		"the last ones":              {[]string{"-n", "2", "-channel", "ops"}, []string{"admin: two", "#ops admin: ops two", "admin: three", "#ops admin: ops three"}},
		"more than there are":        {[]string{"-n", "10000"}, []string{"admin: one", "admin: two", "admin: three"}},
		"behind one":                 {[]string{"-since", ids["one"]}, []string{"admin: two", "admin: three"}},
		"behind one of a channel":    {[]string{"-since", ids["ops two"], "-channel", "dev", "-channel", "ops"}, []string{"#ops admin: ops three"}},
		"behind one of each channel": {[]string{"-since", ids["ops two"], "-since", ids["two"], "-channel", "ops"}, []string{"admin: three", "#ops admin: ops three"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := ctl(t).Begin(t, d.as("user"), append([]string{"tail", "-channel", "end"}, test.args...)...)
			wstest.Eventually(t, "what comes live", func() bool {
				d.publish("end", name)
				return strings.Contains(p.Printed(), "#end admin: "+name)
			})
			var got []string
			for _, line := range printedLines(p) {
				if !strings.HasPrefix(line, "#end ") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			if p.Logged() != "" {
				t.Errorf("it says %q", p.Logged())
			}
		})
	}
}

func TestTailBeginsWithTheLastOnesWithoutAGapOrARepeat(t *testing.T) {
	t.Parallel()
	d := startServer(t, "-history-count", "10000")
	const messages, wanted = 1300, 1200 // of which a page holds 1000
	p := ctl(t)
	var lines strings.Builder
	for i := range messages {
		fmt.Fprintf(&lines, "%d\n", i)
	}
	p.Stdin = lines.String()
	if _, stderr, code := p.RunToEnd(t, d.as("admin"), "send", "-"); code != 0 {
		t.Fatal(stderr)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	sender := ctl(t)
	sender.Input = read
	sender.Begin(t, d.as("admin"), "send", "-")
	read.Close()
	sent := make(chan int)
	stop := make(chan struct{})
	go func() {
		pace := time.NewTicker(2 * time.Millisecond) // else the pipe holds thousands
		defer pace.Stop()
		for i := messages; ; i++ {
			if _, err := fmt.Fprintln(write, i); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				sent <- i
				return
			case <-pace.C:
			}
		}
	}()
	tail := d.tail("user", "", "-n", strconv.Itoa(wanted))
	close(stop)
	last := <-sent
	tail.AwaitPrinted(is(fmt.Sprintf("admin: %d", last)))
	got := printedLines(tail)
	first := last - len(got) + 1
	if len(got) < wanted {
		t.Errorf("%d lines", len(got))
	}
	for i, line := range got {
		if want := fmt.Sprintf("admin: %d", first+i); line != want {
			t.Fatalf("line %d of %d is %q, want %q", i, len(got), line, want)
		}
	}
}

func TestTailShowsHostileContentAsItIs(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	hostile := "one\n2026-11-25 04:31:58 admin: two\r\x1b]0;title\a\x1b[2J\u009b31m\u202eevil\u2028\u2066\u200b\u007f\t\ufeff\\n 👩\u200d🚀 ñ"
	text, raw := d.tail("user", ""), d.tail("admin", "", "-json")
	d.publish("", hostile)
	d.publish("", "end")
	text.AwaitPrinted(is("admin: end"))
	want := []string{
		`admin: one\n2026-11-25 04:31:58 admin: two\r\x1b]0;title\a\x1b[2J\u009b31m\u202eevil\u2028\u2066\u200b\x7f\t\ufeff\n 👩` + "\u200d🚀 ñ",
		"admin: end",
	}
	if diff := cmp.Diff(want, printedLines(text)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}

	raw.AwaitPrinted(is(`"content":"end".*`))
	line, _, _ := strings.Cut(raw.Printed(), "\n")
	var e struct{ Content string }
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(hostile, e.Content); diff != "" {
		t.Errorf("content in JSON (-want +got):\n%s", diff)
	}
	for _, r := range line {
		if r < ' ' || r >= 0x7f && !strings.ContainsRune("👩🚀ñ", r) {
			t.Errorf("%q in %q", r, line)
		}
	}
}

func TestTailSurvivesARestartAndSaysWhatMayBeMissing(t *testing.T) {
	t.Parallel()
	addr := chatdtest.FreeAddr(t)
	d := restarted(t, addr)
	p := d.tail("user", "ops", "-channel", "ops")
	d.publish("ops", "before")
	d.publish("", "before, to everyone")
	p.AwaitPrinted(is("before, to everyone"))
	d.Kill()
	p.Await(regexp.MustCompile(`^chatctl: not connected, retrying: `))
	d = restarted(t, addr) // which has forgotten all
	p.Await(is("chatctl: reconnected"))
	p.Await(regexp.MustCompile(`^chatctl: messages to everyone may be missing here: the server no longer has those after the last one$`))
	p.Await(regexp.MustCompile(`^chatctl: messages to #ops may be missing here: `))
	d.awaitOnline("user", "ops")
	d.publish("ops", "after")
	p.AwaitPrinted(is("#ops admin: after"))
	want := []string{"#ops admin: before", "admin: before, to everyone", "#ops admin: after"}
	if diff := cmp.Diff(want, printedLines(p)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	d.Signal(syscall.SIGTERM)
	d.ExitCode()
	p.Await(regexp.MustCompile(`^chatctl: not connected, retrying: cannot connect to 127\.0\.0\.1:\d+: dial`))
	p.Signal(syscall.SIGINT)
	if code := p.ExitCode(); code != 0 {
		t.Errorf("SIGINT without a connection: exit code %d", code)
	}
}

func TestTailMissesNothingWhenTheLineBreaks(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	way := newCutable(t, strings.TrimPrefix(d.URL, "https://"))
	p := ctl(t).Begin(t, append(d.as("user"), "CHATCTL_URL=https://"+way.listener.Addr().String()), "tail")
	d.awaitOnline("user", "")
	d.publish("", "before")
	p.AwaitPrinted(is("before"))
	way.cut()
	d.publish("", "meanwhile")
	p.AwaitPrinted(is("meanwhile"))
	p.Await(is("chatctl: reconnected, no message was missed"))
	if diff := cmp.Diff([]string{"admin: before", "admin: meanwhile"}, printedLines(p)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestTailEndsForGood(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		end  func(d *server)
		want string
	}{
		"kicked": {func(d *server) { d.admin("kick", "user") }, "chatctl: disconnected by an admin"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startServer(t)
			p := d.tail("user", "")
			test.end(d)
			if code := p.ExitCode(); code != 1 || p.Logged() != test.want {
				t.Errorf("exit code %d, says %q", code, p.Logged())
			}
		})
	}
}

// The shell runs "chatctl tail | head -1".
func TestTailEndsWhenNobodyReads(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	d.publish("", "one")
	program := ctl(t)
	tail := exec.Command(program.Path, "tail", "-n", "1")
	tail.Env = append(append(os.Environ(), program.Env...), d.as("user")...)
	var says strings.Builder
	tail.Stderr = &says
	stdout, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(io.LimitReader(stdout, 1024)).ReadString('\n'); err != nil || !strings.HasSuffix(line, "admin: one\n") {
		t.Errorf("got %q, error %v", line, err)
	}
	stdout.Close() // nothing more is sent: it has to notice by itself
	if err := tail.Wait(); err != nil || says.String() != "" {
		t.Errorf("it ends with %v, says %q", err, &says)
	}
}
