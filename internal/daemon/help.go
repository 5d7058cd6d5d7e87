package daemon

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// printHelp tells all there is to know about the flags, from the flags.
func printHelp(w io.Writer, name string, flags *flag.FlagSet) {
	fmt.Fprintf(w, `Usage:
  %[1]s [flags]        serve chat over WebSocket
  %[1]s hash [flags]   read a password from stdin, print a line for -users

Without flags it is a server to try things on: what it is not given it makes
at start, and prints. SIGTERM sends everybody away and ends it, a second one
ends it at once. SIGHUP has it read its files again.

Flags, each with the environment variable that stands in where it is not given:

`, name)
	printFlags(w, flags)
}

// printFlags gives each flag a line of facts and one or more of prose.
func printFlags(w io.Writer, flags *flag.FlagSet) {
	flags.VisitAll(func(f *flag.Flag) {
		arg, usage := flag.UnquoteUsage(f)
		facts := []string{strings.TrimSpace("-" + f.Name + " " + arg)}
		if env := envName(f.Name); env != "" && flags.Name() != hashCommand {
			facts = append(facts, env)
		}
		if f.DefValue != "" && f.DefValue != "false" {
			facts = append(facts, "default "+f.DefValue)
		}
		fmt.Fprintf(w, "  %s\n", strings.Join(facts, "   "))
		for _, line := range wrap(usage, 72) {
			fmt.Fprintf(w, "      %s\n", line)
		}
		fmt.Fprintln(w)
	})
}

// wrap breaks text between words into lines of at most width bytes.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
