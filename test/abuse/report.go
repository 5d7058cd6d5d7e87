package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// printTable compares the other users' figures without an attack and with it.
func printTable(out io.Writer, quiet, loud *figures) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\twithout\twith it\tratio\t  refused meanwhile")
	row := func(name string, of func(*figures) string, number func(*figures) float64, refused string) {
		ratio := ""
		if number != nil {
			if before, after := number(quiet), number(loud); before > 0 && after > 0 {
				ratio = fmt.Sprintf("%.1f", after/before)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t  %s\n", name, of(quiet), of(loud), ratio, refused)
	}
	of := func(name string, t func(*figures) *tries, quantiles ...float64) {
		row(name+", ok", func(f *figures) string { return t(f).succeeded() }, nil, t(loud).refusals())
		for _, q := range quantiles {
			at := func(f *figures) time.Duration { return t(f).quantile(q) }
			row(fmt.Sprintf("p%.0f", 100*q), func(f *figures) string { return shown(at(f)) },
				func(f *figures) float64 { return float64(at(f)) }, "")
		}
	}
	of("publish", func(f *figures) *tries { return &f.publish }, .5, .99)
	of("delivery", func(f *figures) *tries { return &f.delivery }, .5, .99)
	of("logins", func(f *figures) *tries { return &f.login }, .5, .99)
	of("new sockets", func(f *figures) *tries { return &f.handshake }, .5, .99)
	of("/readyz", func(f *figures) *tries { return &f.ready }, .99)
	row("memory, MiB", func(f *figures) string { return fmt.Sprintf("%.0f", float64(f.memory)/(1<<20)) },
		func(f *figures) float64 { return float64(f.memory) }, "")
	row("CPU, % of a core", func(f *figures) string { return fmt.Sprintf("%.0f", f.cpu()) }, (*figures).cpu, "")
	row("log lines a second", func(f *figures) string { return fmt.Sprintf("%.1f", f.logged()) }, (*figures).logged, "")
	return w.Flush()
}

func (f *figures) cpu() float64    { return 100 * f.spent.Seconds() / f.length.Seconds() }
func (f *figures) logged() float64 { return float64(f.lines) / f.length.Seconds() }

// succeeded returns how many tries succeeded, of how many.
func (t *tries) succeeded() string {
	all := len(t.took)
	for _, n := range t.refused {
		all += n
	}
	return fmt.Sprintf("%d of %d", len(t.took), all)
}

// refusals returns the reasons of failed tries, with their number.
func (t *tries) refusals() string {
	var list []string
	for _, why := range slices.Sorted(maps.Keys(t.refused)) {
		list = append(list, fmt.Sprintf("%s: %d", why, t.refused[why]))
	}
	return strings.Join(list, ", ")
}

// quantile returns a latency that this share of the successful tries did not exceed.
func (t *tries) quantile(q float64) time.Duration {
	if len(t.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.took))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func shown(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.0f ms", float64(d)/1e6)
}

// lines are what an attack did, and its notes.
func (t *tally) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for _, what := range slices.Sorted(maps.Keys(t.counts)) {
		list = append(list, fmt.Sprintf("%s: %d", what, t.counts[what]))
	}
	lines := slices.Clone(t.notes)
	if len(list) > 0 {
		lines = append([]string{strings.Join(list, ", ")}, lines...)
	}
	return lines
}
