package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/reto10/chat/internal/cli"
)

func printOverview(w io.Writer) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "Usage:\n")
	for _, c := range commands {
		fmt.Fprintf(&text, "  %s %-5s [flags] %-8s %s\n", program, c.name, c.args, c.summary)
	}
	fmt.Fprintf(&text, `
  %[1]s help command          lists the flags of a command
  %[1]s -version              prints the version

All commands take -url, and -user or -token-file, or the environment variables
CHATCTL_URL and so on.
`, program)
	_, err := w.Write(text.Bytes())
	return err
}

func (c *command) printHelp(w io.Writer, flags *flag.FlagSet) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "Usage:\n  %s\n\n%s\nFlags, some with the environment variable that sets their default:\n\n",
		strings.TrimSpace(fmt.Sprintf("%s %s [flags] %s", program, c.name, c.args)), c.about)
	cli.PrintFlags(&text, flags, environment)
	_, err := w.Write(text.Bytes())
	return err
}
