package daemon

import (
	"flag"
	"fmt"
	"io"

	"github.com/reto10/chat/internal/cli"
)

// printHelp tells all there is to know about the flags, from the flags.
func printHelp(w io.Writer, name string, flags *flag.FlagSet) {
	fmt.Fprintf(w, `Usage:
  %[1]s [flags]        serve chat over WebSocket
  %[1]s hash [flags]   read a password, print a line for -users

Without flags it is a server to try things on: what it is not given it makes
at start, and prints. SIGTERM sends everybody away and ends it; SIGINT, or a
SIGTERM over two seconds later, ends it at once. SIGHUP has it read its files
again.

Flags, each with the environment variable that stands in where it is not given:

`, name)
	cli.PrintFlags(w, flags, environment)
}
