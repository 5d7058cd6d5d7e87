// Chatctl uses a chatd, or any service of package chat, from a shell: it sends
// messages, follows them, lists and disconnects users, and measures.
//
//	chatctl send -url https://localhost:8443 -insecure -user admin dinner is ready
//	chatctl send -channel ops - < lines
//	chatctl tail -channel ops -n 20
//	chatctl tail -json | jq .content
//	chatctl who
//	chatctl kick ana
//	chatctl bench -secret-file secret -n 1000 -rate 100
//
// The user comes from -user, with the password from a prompt or from -password-file, or
// from -token-file. These flags and -url have environment variables: CHATCTL_URL,
// CHATCTL_USER and so on. "chatctl help send" lists the flags of a command, docs/chatctl.md
// lists all.
//
// Chatctl prints results on stdout and everything else on stderr. It exits with 0 on
// success, with 1 and one line on stderr on failure, and with 2 if the command line is
// wrong. A reader that closes stdout early, such as head, is no failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/reto10/chat/internal/cli"
	"github.com/reto10/chat/internal/terminal"
)

const program = "chatctl"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	// Without this, a write to a closed pipe would end the process with a signal instead of
	// returning errNotRead.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	log.SetOutput(io.Discard) // net/http logs faulty servers there; the errors are enough

	about, err := run(ctx, os.Args[1:], streams{os.Stdin, output{os.Stdout}, screen{os.Stderr}})
	if errors.Is(err, errNotRead) {
		err = nil
	}
	os.Exit(cli.Exit(screen{os.Stderr}, program, about, err))
}

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// say prints text for people, see [fold].
func (s streams) say(text string) error {
	if stdout, ok := s.out.(output); ok {
		text = fold(text, terminal.Width(stdout.File))
	}
	_, err := s.out.Write([]byte(text)) // not its file's WriteString
	return err
}

// errNotRead means that the reader of stdout has closed it.
var errNotRead = errors.New("stdout is closed")

// output is stdout.
type output struct{ *os.File }

func (o output) Write(b []byte) (int, error) {
	n, err := o.File.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		err = errNotRead
	} else if err != nil {
		err = fmt.Errorf("writing to stdout: %w", err)
	}
	return n, err
}

// command is one command of chatctl.
type command struct {
	name    string
	args    string // the arguments after the flags, for the usage line
	summary string // the line in the overview
	about   string // the description in the command's own help

	// define adds the command's own flags and returns the function that runs the command.
	// args are the arguments after the flags.
	define func(*flag.FlagSet) func(ctx context.Context, s *session, args []string) error
}

var commands = []command{sendCommand, tailCommand, whoCommand, kickCommand, benchCommand}

// run runs a command. about says where its usage is described.
func run(ctx context.Context, args []string, std streams) (about string, err error) {
	about = program + " -help lists the commands"
	if len(args) == 0 {
		return about, cli.Usagef("no command")
	}
	name, args := args[0], args[1:]
	switch name {
	case "-version", "--version":
		_, err := fmt.Fprintln(std.out, program, cli.Version())
		return about, err
	case "-h", "-help", "--help":
		return about, printOverview(std.out)
	case "help":
		if len(args) == 0 {
			return about, printOverview(std.out)
		}
		if len(args) > 1 {
			return about, cli.Usagef("help takes one command")
		}
		name, args = args[0], []string{"-help"}
	}
	for _, c := range commands {
		if c.name == name {
			return fmt.Sprintf("%s help %s lists the flags", program, name), c.run(ctx, args, std)
		}
	}
	if strings.HasPrefix(name, "-") {
		return about, cli.Usagef("flags go after the command, as in %s send -url …", program)
	}
	return about, cli.Usagef("there is no command %q", name)
}

func (c *command) run(ctx context.Context, args []string, std streams) error {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the errors
	do := c.define(flags)
	s := &session{std: std}
	s.define(flags)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return c.printHelp(std.out, flags)
	} else if err != nil {
		return cli.UsageError{Err: err}
	}
	var err error
	if s.given, err = environment.Fill(flags, os.LookupEnv); err != nil {
		return err
	}
	if err := s.validate(); err != nil {
		return err
	}
	if err := misplaced(flags, args); err != nil {
		return err
	}
	return do(ctx, s, flags.Args())
}

// misplaced returns an error if a flag is among the arguments, where package flag does not
// see it: "send hello -channel ops" must not send to everyone.
func misplaced(flags *flag.FlagSet, args []string) error {
	first := len(args) - flags.NArg()
	if first > 0 && args[first-1] == "--" {
		return nil
	}
	for _, arg := range flags.Args() {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && flags.Lookup(name) != nil {
			return cli.Usagef("-%s must go before %q; put -- before the text if it is no flag", name, flags.Arg(0))
		}
	}
	return nil
}
