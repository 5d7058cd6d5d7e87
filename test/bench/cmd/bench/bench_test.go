package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/reto10/chat/test/bench/row"
)

func TestBenchLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as Ctrl-C does
	if err := bench(ctx, []string{"-quick", "-kinds", "write"}); !errors.Is(err, context.Canceled) {
		t.Errorf("bench, interrupted: %v, want %v", err, context.Canceled)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%d files are left of it, %v", len(left), err)
	}
}

func TestRowsWithoutTheirProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, tt := range []struct {
		rows  []string
		fails bool
	}{
		{nil, false}, // all
		{[]string{"redis"}, true},
	} {
		var logged []string
		lab := &row.Lab{Log: func(format string, args ...any) { logged = append(logged, fmt.Sprintf(format, args...)) }}
		// No server is of that kind, so nothing is run.
		err := measure(t.Context(), lab, options{rows: tt.rows, kinds: []string{"none"}}, nil)
		if (err != nil) != tt.fails {
			t.Errorf("rows %q: %v, want an error: %v", tt.rows, err, tt.fails)
		}
		if err != nil {
			logged = append(logged, err.Error())
		}
		if !slices.ContainsFunc(logged, func(line string) bool { return strings.Contains(line, "redis: redis-server is not installed") }) {
			t.Errorf("rows %q: said %q, want that redis-server is not installed", tt.rows, logged)
		}
	}
}

func TestAllKinds(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"-rows", "channels,presence"}, []string{"centrifuge", "chat"}},
		{[]string{"-rows", "fanout,tls", "-kinds", "gorilla-joined,chat"}, []string{"chat", "gorilla-joined"}},
		{[]string{"-rows", "presence", "-kinds", "gws"}, nil},
		{[]string{"-rows", "redis,channels", "-kinds", "chat"}, []string{"chat", "chat-redis"}},
	} {
		o, err := parse(tt.args)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.allKinds(); !slices.Equal(got, tt.want) {
			t.Errorf("servers for %q = %q, want %q", tt.args, got, tt.want)
		}
	}
}
