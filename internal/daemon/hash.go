package daemon

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/cli"
	"github.com/reto10/chat/internal/terminal"
)

// hash reads a password and prints a line for the users file.
func hash(prog Program, proc Process) error {
	flags := flag.NewFlagSet(hashCommand, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	user := flags.String("user", "user", "the `name` to log in with")
	role := flags.String("role", "", "the user's `role`, such as admin; by default an ordinary user")
	err := flags.Parse(proc.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(proc.Stdout, "Usage:\n  %s hash [flags] < file-with-the-password >> users-file\n\nFlags:\n\n", prog.Name)
		cli.PrintFlags(proc.Stdout, flags, nil)
		return nil
	case err != nil:
		return cli.UsageError{Err: err}
	case flags.NArg() > 0:
		return cli.Usagef("hash takes no argument: it reads the password from stdin") // the argument may be the password
	case !validField(*user):
		return cli.Usagef("-user %q is not a valid username, or contains a colon or begins with #", *user)
	case *role != "" && !validField(*role):
		return cli.Usagef("-role %q is not valid: use printable text without a colon or a leading #", *role)
	}

	password, err := readPassword(proc, *user)
	if err != nil {
		return fmt.Errorf("reading the password: %w", err)
	}
	hashed, err := chat.HashPassword(password)
	if err != nil {
		return fmt.Errorf("hashing the password: %w", err)
	}
	line := *user + ":" + hashed
	if *role != "" {
		line += ":" + *role
	}
	_, err = fmt.Fprintln(proc.Stdout, line)
	return err
}

// validField reports whether s can be a name or a role in a users file.
func validField(s string) bool {
	return chat.ValidUsername(s) && !strings.Contains(s, ":") && !strings.HasPrefix(s, "#")
}

// readPassword returns the first line of stdin. From a terminal it reads the password
// twice, since what is typed does not show.
func readPassword(proc Process, user string) (string, error) {
	f, ok := proc.Stdin.(*os.File)
	if !ok || !terminal.Is(f) {
		return readLine(proc.Stdin)
	}
	password, err := terminal.ReadPassword("password of " + user + ": ")
	if errors.Is(err, terminal.ErrNone) {
		fmt.Fprintf(proc.Stderr, "password of %s (it will show): ", user)
		return readLine(proc.Stdin)
	}
	if err != nil {
		return "", err
	}
	again, err := terminal.ReadPassword("again: ")
	if err == nil && again != password {
		err = errors.New("the two passwords differ")
	}
	return password, err
}

// readLine returns the first line of r without its line end.
func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, terminal.MaxLine)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}
