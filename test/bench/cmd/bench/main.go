// Command bench measures this library's server beside its peers', and prints one
// table.
//
//	bench [-quick] [-rows fanout,sockets] [-kinds chat,gws] [-runs 3] [-out DIR]
//
// Each server is a program of its own, built at the start and run on one core; the
// load is this process, on another. Runs are interleaved, and ratios are of runs that
// followed each other.
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
