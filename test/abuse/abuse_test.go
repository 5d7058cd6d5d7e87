package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) {
	if os.Getenv(serveVariable) != "" {
		os.Exit(serve())
	}
	if task := os.Getenv(attackVariable); task != "" {
		os.Exit(runAttack(task, os.Stdin, os.Stdout))
	}
	code := leak.Run(m)
	if shared != nil {
		shared.remove()
	}
	os.Exit(code)
}

// TestEveryAttackRuns runs each attack for a moment, on a chatd of this tree. The
// measurements of such a run mean nothing.
func TestEveryAttackRuns(t *testing.T) {
	for _, name := range names(attacks) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := run(t.Context(), []string{"-attack", name, "-for", "300ms", "-cost", "4", "-small", "-chatd", chatd()}, &out)
			if err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			said := out.String()
			for _, want := range []string{
				`(?m)^` + name + `: `,
				`publish, ok +[1-9]\d* of \d+ +\d+ of \d+`, `delivery, ok +[1-9]`, `logins, ok +[1-9]`, `new sockets, ok +[1-9]`, `/readyz, ok +[1-9]`,
				`memory, MiB +\d+ +\d+`, `CPU, % of a core`, `log lines a second`,
				`the attack: \S`,
			} {
				if !regexp.MustCompile(want).MatchString(said) {
					t.Errorf("no match of %s", want)
				}
			}
			if strings.Contains(said, "the server has ended") || strings.Contains(said, "panic") {
				t.Error("the server has ended")
			}
			if t.Failed() {
				t.Log(said)
			}
		})
	}
}

// chatd is a binary built from this tree. TestMain removes it.
var chatd = sync.OnceValue(func() string {
	b, err := newBench(context.Background(), settings{cost: 4})
	if err != nil {
		panic(err)
	}
	shared = b
	return b.binary
})

var shared *bench // what chatd has made; nil before

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"too long":           {[]string{"-for", "2m"}, "at most 1m0s"},
		"no time":            {[]string{"-for", "0s"}, "more than nothing"},
		"no such attack":     {[]string{"-attack", "flood"}, "history/many"},
		"an argument":        {[]string{"https://chat.example"}, "unexpected argument"},
		"no such binary":     {[]string{"-chatd", "/nonexistent", "-attack", "sockets/open"}, "starting a server"},
		"a server elsewhere": {[]string{"-chatd", elsewhere(t), "-attack", "sockets/open"}, "only one on loopback"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), append([]string{"-cost", "4"}, tt.args...), new(bytes.Buffer))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// elsewhere is a program that claims to listen on another machine.
func elsewhere(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/chatd"
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho 'listening on http://192.0.2.1:80' >&2\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAnInterruptedAttackEnds ends a run in the middle.
func TestAnInterruptedAttackEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := run(ctx, []string{"-attack", "login/wrong", "-for", "30s", "-cost", "4", "-chatd", chatd()}, new(bytes.Buffer))
	if err == nil {
		t.Error("it ended without an error")
	}
}
