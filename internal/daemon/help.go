package daemon

import (
	"flag"
	"fmt"
	"io"

	"github.com/reto10/chat/internal/cli"
)

// printHelp prints the usage, and the flags with their environment variables.
func printHelp(w io.Writer, name string, flags *flag.FlagSet) {
	fmt.Fprintf(w, `Usage:
  %[1]s [flags]        serve chat over WebSocket
  %[1]s hash [flags]   read a password, print a line for -users

Without flags it is a server to try out: it makes users, key and certificate
at start, and prints the passwords. SIGTERM drains the server and ends it.
SIGINT, or another SIGTERM after more than two seconds, ends it at once. SIGHUP
reloads the files of users and certificate.

Flags, each with the environment variable that it is read from when not given:

`, name)
	cli.PrintFlags(w, flags, environment)
}
