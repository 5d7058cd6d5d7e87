package clienttest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// An agent is a program on somebody else's WebSocket implementation. It reads
// commands on its stdin and writes events on its stdout, each one JSON object a
// line, and verifies the server's certificate. It ends when its stdin does, and
// cuts its connection then.

// command is one of:
//
//	request  method, url, header, text: an HTTP request; answered by response
//	connect  url, header, protocols: answered by open, refused or failed
//	send     text: a text frame
//	ping     text: a ping frame; answered by pong
//	close    code: begins the closing handshake; answered by close
//	drop     cuts the connection without a word; answered by close with 1006
type command struct {
	Do        string            `json:"do"`
	Method    string            `json:"method,omitempty"`
	URL       string            `json:"url,omitempty"`
	Header    map[string]string `json:"header,omitempty"`
	Protocols []string          `json:"protocols,omitempty"`
	Text      string            `json:"text,omitempty"`
	Code      int               `json:"code,omitempty"`
}

// event is one of:
//
//	response      status; text is the body
//	open          text is the subprotocol
//	refused       status of the answer to the handshake
//	failed        text: what could not be done and why
//	text, binary  text of a frame
//	pong          text of one
//	close         code; text is the reason
type event struct {
	Event  string `json:"event"`
	Status int    `json:"status,omitempty"`
	Code   int    `json:"code,omitempty"`
	Text   string `json:"text,omitempty"`
}

// agent is one that runs.
type agent struct {
	t      *testing.T
	stdin  io.WriteCloser
	events chan event // closed at the end
}

// implementation is a kind of agents.
type implementation struct {
	name string
	// script is an agent's program, run by interpreter in the script's directory
	// once probe, run likewise, has found that all it needs is there. Without one
	// the agent is in this process.
	script      string
	directory   string
	interpreter []string
	probe       []string
	trust       string // the variable that names the file with trusted certificates
}

var implementations = []implementation{
	{
		name: "gorilla",
	},
	{
		name:        "ws",
		script:      "agent.js",
		directory:   "node",
		interpreter: []string{"node"},
		probe:       []string{"-e", "require('ws')"},
		trust:       "NODE_EXTRA_CA_CERTS",
	},
	{
		name:        "python3-websockets",
		script:      "agent.py",
		directory:   "python",
		interpreter: []string{"/usr/bin/python3", "-I"}, // Debian's, with Debian's modules
		probe:       []string{"-c", "import websockets"},
		trust:       "SSL_CERT_FILE",
	},
}

// require fails the test when something is missing that the agents need.
func (i *implementation) require(t *testing.T) {
	t.Helper()
	if i.script == "" {
		return
	}
	if _, err := i.run(t, i.probe...).Output(); err != nil {
		t.Fatalf("%s cannot be used (%v): make test installs it", i.name, err)
	}
	// That a result is cached must depend on the script as well.
	if _, err := os.ReadFile(i.directory + "/" + i.script); err != nil {
		t.Fatal(err)
	}
}

// run prepares a process of the interpreter, with an environment of its own.
func (i *implementation) run(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, i.interpreter[0], append(i.interpreter[1:], args...)...)
	cmd.Dir = i.directory
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return cmd
}

// start runs an agent until the test ends.
func (i *implementation) start(t *testing.T, trusted *authority) *agent {
	t.Helper()
	if i.script == "" {
		return startGorilla(t, trusted)
	}
	cmd := i.run(t, i.script)
	cmd.Env = append(cmd.Env, i.trust+"="+trusted.file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return newAgent(t, stdin, stdout, func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%s: %w\n%s", i.name, err, stderr.String())
		}
		return nil
	})
}

// newAgent is an agent behind two pipes. ended is called once when stdout has
// ended and says whether that was well.
func newAgent(t *testing.T, stdin io.WriteCloser, stdout io.Reader, ended func() error) *agent {
	a := &agent{t: t, stdin: stdin, events: make(chan event, 64)}
	outcome := make(chan error, 1)
	go func() {
		defer close(a.events)
		outcome <- errors.Join(a.read(stdout), ended())
	}()
	t.Cleanup(func() {
		_ = a.stdin.Close()
		for range a.events { // not of interest any more
		}
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *agent) read(stdout io.Reader) error {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("an agent says %q: %w", lines.Text(), err)
		}
		a.events <- e
	}
	return lines.Err()
}

func (a *agent) do(c command) {
	a.t.Helper()
	line, err := json.Marshal(c)
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := a.stdin.Write(append(line, '\n')); err != nil {
		a.t.Fatalf("asking an agent to %s: %v", c.Do, err)
	}
}

// next is the next event.
func (a *agent) next() event {
	a.t.Helper()
	select {
	case e, ok := <-a.events:
		if !ok {
			a.t.Fatal("the agent has ended")
		}
		return e
	case <-time.After(patience):
		a.t.Fatal("waited in vain for an event")
	}
	return event{}
}
