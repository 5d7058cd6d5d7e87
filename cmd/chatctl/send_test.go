package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/test/wstest"
)

func TestSendTellsEveryoneAChannelOrOnePerson(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	if said := d.admin("send", "dinner", "is ready"); said != "" {
		t.Errorf("it says %q", said)
	}
	d.admin("send", "-channel", "ops", "deploying")
	d.admin("send", "-to", "user", "for you alone")
	d.admin("send", "--", "-channel", "is a flag")
	d.admin("send", "-channel=ops", "--", "-")
	got := map[string][]string{}
	for _, channel := range []string{"", "ops"} {
		got[channel] = d.contents(channel)
	}
	_, body := d.Request(http.MethodGet, "/messages?channel=@user", d.Token("user"), "")
	if !strings.Contains(body, `"content":"for you alone"`) {
		t.Errorf("to one person: %s", body)
	}
	want := map[string][]string{"": {"dinner is ready", "-channel is a flag"}, "ops": {"deploying"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestSendPrintsIDsWhenAsked(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	p := ctl(t)
	p.Stdin = "one\ntwo\n"
	stdout, stderr, code := p.RunToEnd(t, d.as("admin"), "send", "-ids", "-channel", "ops", "-")
	if code != 0 || !regexp.MustCompile(`^1-\w+-ops\n2-\w+-ops\n$`).MatchString(stdout) {
		t.Errorf("exit code %d, prints %q, says %q", code, stdout, stderr)
	}
}

func TestSendReadsLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long ", 6000)
	tests := map[string]struct {
		stdin    string
		wantSent []string
		wantSays string // "": nothing, and it works
	}{
		"lines":                   {"one\ntwo\n", []string{"one", "two"}, ""},
		"none":                    {"", nil, ""},
		"empty ones, and no end":  {"\none\n\n\r\ntwo\r\nthree", []string{"one", "two", "three"}, ""},
		"blanks are content":      {"  one \n", []string{"  one "}, ""},
		"as long as may be":       {long + "\n", []string{long}, ""},
		"longer than the content": {"one\ntwo\n\n" + long + long + "\nfour\n", []string{"one", "two"}, `^chatctl: line 4: .*content.*; 2 messages before that were sent\n$`},
		"longer than is read":     {"one\n" + strings.Repeat("x", 2<<20) + "\nthree\n", []string{"one"}, `^chatctl: line 2: over 1048576 bytes; one message before that was sent\n$`},
		"not UTF-8":               {"caf\xe9\ntwo\n", nil, `^chatctl: line 1: the text is not UTF-8\n$`},
		"a NUL":                   {"one\n\x00\n", []string{"one"}, `^chatctl: line 2: the text contains a NUL; one message`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startServer(t)
			p := ctl(t)
			p.Stdin = test.stdin
			stdout, stderr, code := p.RunToEnd(t, d.as("admin"), "send", "-")
			if ok := test.wantSays == ""; ok != (code == 0) || ok != (stderr == "") || !ok && !regexp.MustCompile(test.wantSays).MatchString(stderr) || stdout != "" {
				t.Errorf("exit code %d, prints %q, says %q", code, stdout, stderr)
			}
			if diff := cmp.Diff(test.wantSent, d.contents("")); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSendNeverSendsAgainWhatMayHaveBeenStored(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	way := newCutable(t, strings.TrimPrefix(d.URL, "https://"))
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	program := ctl(t)
	program.Input = read
	p := program.Begin(t, append(d.as("admin"), "CHATCTL_URL=https://"+way.listener.Addr().String()), "send", "-ids", "-")
	read.Close()
	fmt.Fprintln(write, "one")
	p.AwaitPrinted(regexp.MustCompile(`^1-`))
	way.mute.Store(true)
	fmt.Fprintln(write, "two")
	wstest.Eventually(t, "the server to have it", func() bool { return len(d.contents("")) == 2 })
	way.cut()
	p.Await(regexp.MustCompile(`^chatctl: line 2: no answer from 127\.0\.0\.1:\d+: the message may have been stored and is not sent again .*; one message before that was sent$`))
	if code := p.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if diff := cmp.Diff([]string{"one", "two"}, d.contents("")); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

func TestSendIsInterruptedWhileItReads(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	program := ctl(t)
	program.Input = read
	p := program.Begin(t, d.as("admin"), "send", "-ids", "-")
	read.Close()
	fmt.Fprintln(write, "one")
	p.AwaitPrinted(regexp.MustCompile(`^1-`))
	p.Signal(syscall.SIGINT)
	if code := p.ExitCode(); code != 1 || p.Logged() != "chatctl: interrupted; one message before that was sent" {
		t.Errorf("exit code %d, says %q", code, p.Logged())
	}
}

// Like a server that shuts down, or a proxy whose server does not answer.
func TestSendSaysWhatAServerThatCannotNowMayHaveDone(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, http.StatusServiceUnavailable, "shutting down")
	}))
	t.Cleanup(srv.Close)
	env := []string{"CHATCTL_URL=" + srv.URL, "CHATCTL_TOKEN=abc"}
	_, stderr, code := ctl(t).RunToEnd(t, env, "send", "hello")
	if want := "chatctl: shutting down: the message may have been stored and is not sent again\n"; code != 1 || stderr != want {
		t.Errorf("exit code %d, says %q", code, stderr)
	}
}
