package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat/test/bench/peer"
	"github.com/reto10/chat/test/bench/report"
	"github.com/reto10/chat/test/bench/row"
)

// options are the command's flags.
type options struct {
	rows, kinds []string
	runs        int
	quick       bool
	out         string
	soak        time.Duration
	rest        time.Duration
	limit       time.Duration
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rows := flags.String("rows", "", "rows to measure, comma-separated (default all; with -quick the first)")
	kinds := flags.String("kinds", "", "servers to measure, comma-separated (default all)")
	flags.IntVar(&o.runs, "runs", 0, "runs of each server and row (default 3; with -quick 1)")
	flags.BoolVar(&o.quick, "quick", false, "smaller and shorter, under a minute")
	flags.StringVar(&o.out, "out", "", "directory for bench.json, bench.svg and bench.md, whose rows that are not run are kept (default none)")
	flags.DurationVar(&o.soak, "soak", 0, "add a soak of this length")
	flags.DurationVar(&o.rest, "rest", 500*time.Microsecond, "how long clients do not read while messages are expected")
	flags.DurationVar(&o.limit, "timeout", 90*time.Minute, "stop after this time")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.runs <= 0 {
		o.runs = 3
		if o.quick {
			o.runs = 1
		}
	}
	o.rows, o.kinds = split(*rows), split(*kinds)
	for _, name := range o.rows {
		if !slices.ContainsFunc(row.Rows, func(r row.Row) bool { return r.Name == name }) {
			return o, fmt.Errorf("-rows: unknown row %q, not one of %s", name, strings.Join(row.Names(), ", "))
		}
	}
	for _, kind := range o.kinds {
		if !slices.Contains(peer.Kinds, kind) {
			return o, fmt.Errorf("-kinds: unknown server %q, not one of %s", kind, strings.Join(peer.Kinds, ", "))
		}
	}
	return o, nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// kindsOf returns the servers for which a row is measured.
func (o options) kindsOf(r row.Row) []string {
	var kinds []string
	for _, kind := range r.Kinds {
		if len(o.kinds) == 0 || slices.Contains(o.kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// allKinds returns the servers for which any row is measured.
func (o options) allKinds() []string {
	var kinds []string
	for _, r := range row.Rows {
		if o.wants(r) {
			for _, kind := range o.kindsOf(r) {
				kinds = append(kinds, peer.WithBackend(kind, r.Backend))
			}
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// wants reports whether to measure a row.
func (o options) wants(r row.Row) bool {
	switch {
	case r.Soak:
		return o.soak > 0
	case len(o.rows) > 0:
		return slices.Contains(o.rows, r.Name)
	}
	return !o.quick || r.Quick
}

func bench(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary
	programs, err := build(ctx, dir, o.allKinds())
	if err != nil {
		return err
	}
	lab, err := newLab(o, programs)
	if err != nil {
		return err
	}
	results := make(report.Results)
	failed := measure(ctx, lab, o, results)
	err = report.Table(os.Stdout, results, peer.Kinds)
	if o.out != "" && ctx.Err() == nil {
		here, unread := report.Here(programs.Paths()...)
		here.Quick = o.quick
		all, dates, unreadable := report.Read(o.out) // rows that were not run stay as they were
		if unreadable == nil {
			all.Update(results)
			dates.Update(results, here.Date)
			unreadable = report.Write(o.out, here, all, dates, peer.Kinds)
		}
		err = errors.Join(err, unread, unreadable)
	}
	return errors.Join(err, ctx.Err(), failed)
}

// build builds the servers with all cores, so it runs before this process is pinned to one.
func build(ctx context.Context, dir string, kinds []string) (row.Programs, error) {
	const noticeable = 2 * time.Second
	slow := time.AfterFunc(noticeable, func() { say("building the servers; the first time it takes a while") })
	defer slow.Stop()
	return row.Build(ctx, dir, kinds)
}

// say prints the progress.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// newLab prepares the machine: with two cores, this process uses the second and the servers
// the first.
func newLab(o options, programs row.Programs) (*row.Lab, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	lab := &row.Lab{
		Programs:   programs,
		Secret:     secret,
		ServerCore: -1,
		Quick:      o.quick,
		Rest:       o.rest,
		Soak:       o.soak,
		Log:        say,
	}
	if runtime.NumCPU() < 2 {
		lab.Log("one core only: server and load get into each other's way")
		return lab, nil
	}
	lab.ServerCore = 0
	return lab, peer.Pin(1)
}

// measure runs the rows, the servers of each interleaved. A failed run leaves a gap in the
// table, and its error is returned at the end.
func measure(ctx context.Context, lab *row.Lab, o options, results report.Results) error {
	var failed error
	for _, r := range row.Rows {
		if !o.wants(r) {
			continue
		}
		if err := r.Needs.Installed(); err != nil {
			err = fmt.Errorf("%s: %w", r.Name, err)
			if len(o.rows) > 0 {
				failed = errors.Join(failed, err)
			} else {
				lab.Log("skipped: %v", err)
			}
			continue
		}
		runs := o.runs
		if r.Soak {
			runs = 1
		}
		for run := range runs {
			for _, kind := range o.kindsOf(r) {
				begin := time.Now()
				values, err := r.Run(lab, ctx, kind)
				if ctx.Err() != nil {
					return failed
				}
				if err != nil {
					err = fmt.Errorf("%s of %s, run %d: %w", r.Name, kind, run+1, err)
					lab.Log("%v", err)
					failed = errors.Join(failed, err)
				}
				for id, v := range values {
					results.Set(id, kind, run, v)
				}
				lab.Log("%s %d/%d %s: %.1f s", r.Name, run+1, runs, kind, time.Since(begin).Seconds())
			}
		}
	}
	return failed
}
