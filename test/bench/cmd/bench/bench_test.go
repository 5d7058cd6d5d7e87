package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
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

func TestAllKinds(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"-rows", "channels,presence"}, []string{"centrifuge", "chat"}},
		{[]string{"-rows", "fanout,tls", "-kinds", "gorilla-joined,chat"}, []string{"chat", "gorilla-joined"}},
		{[]string{"-rows", "presence", "-kinds", "gws"}, nil},
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
