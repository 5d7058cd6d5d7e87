// Chaos runs a cluster of real processes, breaks it by a plan that a seed decides, and checks
// the promises of the protocol: see package chaos.
//
//	go run ./cmd/chaos -seed 7 -length 2m
//
// The seed also decides whether the faults lose data (at even seeds) and whether the
// nodes' clocks are wrong (at seeds 2, 3, 6, 7 and so on); -lossy and -skew override it.
//
// It prints the plan, its progress and a verdict. It exits with 0 if all checks passed, 1 if
// one failed, 2 if the run could not be carried out. It ends the processes that it
// started, also on Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/reto10/chat/test/chaos"
)

func main() { os.Exit(run()) }

// given lets the seed decide what no flag sets.
func given(config chaos.Config) chaos.Config {
	decided := config.ForSeed()
	flag.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "lossy":
			decided.Lossy = config.Lossy
		case "skew":
			decided.Skew = config.Skew
		}
	})
	return decided
}

func run() int {
	config := chaos.Default()
	flag.Uint64Var(&config.Seed, "seed", config.Seed, "decide by this number what breaks, when and where")
	flag.DurationVar(&config.Length, "length", config.Length, "break things for this duration")
	flag.IntVar(&config.Nodes, "nodes", config.Nodes, "the number of nodes")
	flag.IntVar(&config.Clients, "clients", config.Clients, "the number of sockets")
	flag.IntVar(&config.Rate, "rate", config.Rate, "the messages published per second")
	flag.StringVar(&config.Registry, "registry", config.Registry, "the nodes' registry: memory or redis")
	flag.StringVar(&config.History, "history", config.History, "the nodes' history: memory, redis or postgres")
	flag.DurationVar(&config.Lease, "lease", config.Lease, "how long the users of a dead node may stay connected")
	flag.BoolVar(&config.Forgetful, "forgetful", config.Forgetful, "accept reports of losses to clients at any time")
	flag.BoolVar(&config.Lossy, "lossy", false, "include faults that lose data, with nodes without -redis-durable (default: at even seeds)")
	flag.DurationVar(&config.Skew, "skew", 0, "how far the nodes' clocks are off (default: an hour at seeds 2, 3, 6, 7, 10, 11 and so on)")
	flag.BoolVar(&config.Race, "race", config.Race, "build the nodes with the race detector")
	flag.BoolVar(&config.Keep, "keep", config.Keep, "keep the logs")
	faults := flag.String("faults", "", "choose only from these faults, comma-separated: "+strings.Join(chaos.Faults(), ", "))
	storm := flag.Int("storm", 0, "instead of faults, kill a node with this number of clients, which all resume at another within a second")
	flag.Parse()
	config = given(config)
	if *faults != "" {
		config.Faults = strings.Split(*faults, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := chaos.Run
	if *storm > 0 {
		config.Clients, run = *storm, chaos.Storm
		rated := false
		flag.Visit(func(f *flag.Flag) { rated = rated || f.Name == "rate" })
		if !rated {
			config.Rate = chaos.StormRate
		}
	}
	verdict, err := run(ctx, config, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		return 2
	}
	verdict.Print(os.Stdout)
	if !verdict.OK() {
		return 1
	}
	return 0
}
