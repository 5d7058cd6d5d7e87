// Command bench measures this library's server beside its peers', and prints one
// table.
//
//	bench [-quick] [-rows fanout,sockets] [-kinds chat,gws] [-runs 3] [-out DIR]
//	bench server -kind chat    one of the servers, until standard input ends
//
// Each server is a process of its own on one core; the load is this process, on
// another. Runs are interleaved, and ratios are of runs that followed each other.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/reto10/chat/internal/bench/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) > 1 && os.Args[1] == "server" {
		err = peer.Main(os.Args[2:], os.Stdin, os.Stdout)
	} else {
		err = bench(ctx, os.Args[1:])
	}
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
