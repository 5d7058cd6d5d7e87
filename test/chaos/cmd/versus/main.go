// Versus compares this library with its Redis registry with centrifuge with its Redis
// engine: the latency from a publish on one node to the delivery on another, the publishes
// per second, and their cost in Redis.
//
// Two nodes, each a process, share one redis-server that persists nothing. The kinds are
// measured interleaved, A B C A B C, on the same Redis, which is emptied in between. A cell
// is the median of the turns, with the lowest and the highest.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "versus: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	kind := flag.String("serve", "", "run as a node of this `kind`")
	redisAddress := flag.String("redis", "", "the node's Redis, `host:port`")
	turns := flag.Int("turns", 3, "measure each kind this number of times")
	seconds := flag.Int("seconds", 5, "publish for this time in each measurement")
	rate := flag.Int("rate", 200, "messages a second while latency is measured")
	publishers := flag.Int("publishers", 64, "the number of concurrent publishers while throughput is measured")
	flag.Parse()
	if *kind != "" {
		return serve(*kind, *redisAddress)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	kinds := []string{kindChat, kindCentrifugeHistory, kindCentrifuge}
	results := make(map[string][]result)
	for turn := range *turns {
		for _, kind := range kinds {
			r, err := measure(ctx, kind, *rate, *publishers, *seconds)
			if err != nil {
				return fmt.Errorf("turn %d of %s: %w", turn+1, kind, err)
			}
			results[kind] = append(results[kind], r)
			fmt.Fprintf(os.Stderr, "turn %d %s: %+v\n", turn+1, kind, r)
		}
	}
	table(kinds, results)
	return nil
}

func table(kinds []string, results map[string][]result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer func() { _ = w.Flush() }() // for people
	fmt.Fprintln(w, "\t"+strings.Join(kinds, "\t"))
	row := func(name, format string, of func(result) float64) {
		cells := []string{name}
		for _, kind := range kinds {
			var values []float64
			for _, r := range results[kind] {
				values = append(values, of(r))
			}
			slices.Sort(values)
			cells = append(cells, fmt.Sprintf(format+" ("+format+" "+format+")",
				values[len(values)/2], values[0], values[len(values)-1]))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	row("publish to delivery, p50, ms", "%.2f", func(r result) float64 { return r.p50 })
	row("publish to delivery, p99, ms", "%.2f", func(r result) float64 { return r.p99 })
	row("publishes a second", "%.0f", func(r result) float64 { return r.throughput })
	row("of these delivered, percent", "%.1f", func(r result) float64 { return r.delivered })
	row("round trips to Redis a message", "%.2f", func(r result) float64 { return r.trips })
	row("Redis commands a message, those of scripts included", "%.2f", func(r result) float64 { return r.commands })
	row("Redis CPU a message, µs", "%.1f", func(r result) float64 { return r.cpu })
}
