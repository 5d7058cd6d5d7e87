// Package daemon is the server program around package chat: flags and environment,
// certificates, users, signals, draining, health. The main function of chatd calls
// [Main]; a program that adds something to chatd says what in a [Program].
//
// Main reads the configuration (config.go), sets up what it names without touching the
// network (setup.go), then serves until a signal ends it (serve.go).
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

// Program describes a server program. The zero value of each field but Name adds nothing
// to chatd, which keeps everything in memory.
type Program struct {
	Name string

	// Flags defines further flags. Each gets an environment variable like the others.
	Flags func(*flag.FlagSet)

	// Registries and Histories are further values of -registry and -history, as the
	// help shows them: "redis://…".
	Registries, Histories []string

	// Open opens what the storage settings name. Main calls it once, with a valid
	// configuration, before it creates the service. Main itself provides the histories
	// "memory" and "off"; Open may reject them. An error ends the program, and must not
	// contain a password. Return a [UsageError] when the settings are wrong.
	Open func(context.Context, Storage, *slog.Logger) (Backend, error)
}

// Backend is what the Open function of a [Program] opened. Every field is optional.
type Backend struct {
	Options []chat.Option                       // for [chat.New]
	Checks  []Check                             // for /readyz
	Debug   func(*chat.Service, *http.ServeMux) // adds routes to -debug-addr
	Close   func() error                        // called after the service has shut down

	Warnings []Warning // logged once the server runs
}

// Check asks a part of the server, such as "registry", whether it works. After an error
// /readyz answers 503 and names the part; the error itself goes to the log.
type Check struct {
	Part string
	Ask  func(context.Context) error
}

// Process is a program's access to the operating system.
type Process struct {
	Args           []string // without the program's own name
	LookupEnv      func(string) (string, bool)
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Notify         func(chan<- os.Signal, ...os.Signal) // as [os/signal.Notify]
}

// hashCommand is the first argument that makes the program print a line for -users.
const hashCommand = "hash"

// UsageError returns an error for a program that was started with wrong settings. The
// program exits with 2, which tells supervisors not to start it again.
func UsageError(format string, args ...any) error { return cli.Usagef(format, args...) }

// Main runs the program and returns its exit code. The end of ctx has the effect of
// SIGTERM. An error is printed to stderr as one line.
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
		if err := cfg.storage.requireInMemory(prog.Name); err != nil {
			return err
		}
	}
	return serve(ctx, prog, proc, cfg)
}
