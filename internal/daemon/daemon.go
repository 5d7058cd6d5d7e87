// Package daemon is what a server program around package chat does besides
// chatting: flags and environment, certificates, users, signals, draining,
// health. A program's main is a call of [Main]; what it adds to a plain chatd it
// says in a [Program].
//
// It goes in three steps, each of them plain: read the configuration (config.go),
// set up what it names without touching the network (setup.go), serve until a
// signal says otherwise (serve.go).
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/cli"
)

// Program is what a binary adds to a plain chatd. One with a name alone adds
// nothing, and keeps everything in memory.
type Program struct {
	Name string

	// Flags defines further flags, each of which gets its environment variable
	// like the others.
	Flags func(*flag.FlagSet)

	// Registries and Histories are what -registry and -history may be beside
	// what every program has, for the help: "redis://…".
	Registries, Histories []string

	// Open is called once, when the configuration holds, before the service is
	// made. Its error, which holds no password, ends the program; one of
	// [UsageError] says that the configuration makes no sense. Histories in
	// memory and off are not its concern, other than to refuse them.
	Open func(context.Context, Storage, *slog.Logger) (Backend, error)
}

// Backend is what a [Program] opened. Every field may be left out.
type Backend struct {
	Options []chat.Option                       // for [chat.New]
	Checks  []Check                             // of /readyz
	Debug   func(*chat.Service, *http.ServeMux) // adds to the debug address
	Close   func() error                        // called when the service has shut down

	Warnings []Warning // to be logged once the server runs
}

// Check asks a part of the server, such as "registry", whether it works. An error
// turns /readyz red, which tells of the part, and is logged.
type Check struct {
	Part string
	Ask  func(context.Context) error
}

// Process is the part of the operating system that a program sees.
type Process struct {
	Args           []string // without the program's own name
	LookupEnv      func(string) (string, bool)
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Notify         func(chan<- os.Signal, ...os.Signal) // as [os/signal.Notify]
}

// hashCommand, as the first argument, asks for a line of a users file.
const hashCommand = "hash"

// UsageError is an error of a [Program] that was started in a way that makes no
// sense.
func UsageError(format string, args ...any) error { return cli.Usagef(format, args...) }

// Main runs the program and returns its exit code. It ends when ctx does, as on
// SIGTERM, or on a signal. What fails is one line on stderr.
func Main(ctx context.Context, prog Program, proc Process) int {
	return cli.Exit(proc.Stderr, prog.Name, prog.Name+" -help lists the flags", run(ctx, prog, proc))
}

func run(ctx context.Context, prog Program, proc Process) error {
	if len(proc.Args) > 0 && proc.Args[0] == hashCommand {
		return hash(prog, proc)
	}
	cfg, flags, err := parseConfig(prog, proc)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printHelp(proc.Stdout, prog.Name, flags)
		return nil
	case err != nil:
		return err
	case cfg.version:
		fmt.Fprintln(proc.Stdout, prog.Name, cli.Version())
		return nil
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	if prog.Open == nil {
		if err := cfg.storage.alone(prog.Name); err != nil {
			return err
		}
	}
	return serve(ctx, prog, proc, cfg)
}
