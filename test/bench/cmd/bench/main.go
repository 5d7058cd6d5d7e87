// Command bench compares this library's server with similar servers and prints one table.
//
//	bench [-quick] [-rows fanout,sockets] [-kinds chat,gws] [-runs 3] [-out DIR]
//
// Each server is its own program, built at the start and run on one core. The load is this
// process, on another core. Runs are interleaved, and ratios are of consecutive runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
