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
)

// maxPasswordLine bounds what is read of stdin; bcrypt takes far less.
const maxPasswordLine = 1024

// hash reads a password, the first line of stdin, and prints a line for the
// users file. At a terminal it asks, and the password can be seen as it is typed.
func hash(prog Program, proc Process) error {
	flags := flag.NewFlagSet(hashCommand, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	user := flags.String("user", "user", "the `name` to log in with")
	role := flags.String("role", "", "the user's `role`, such as admin; without one it is an ordinary user")
	err := flags.Parse(proc.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(proc.Stdout, "Usage:\n  %s hash [flags] < file-with-the-password >> users-file\n\nFlags:\n\n", prog.Name)
		printFlags(proc.Stdout, flags)
		return nil
	case err != nil:
		return usageError{err}
	case flags.NArg() > 0:
		return usagef("unexpected argument to hash") // maybe the password: not repeated
	case !fieldable(*user):
		return usagef("-user %q cannot be a user's name in a file", *user)
	case *role != "" && !fieldable(*role):
		return usagef("-role %q cannot be a role in a file", *role)
	}

	if f, ok := proc.Stdin.(*os.File); ok && isTerminal(f) {
		fmt.Fprintf(proc.Stderr, "password of %s (it will show): ", *user)
	}
	password, err := readLine(proc.Stdin)
	if err != nil {
		return fmt.Errorf("reading the password from stdin: %w", err)
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

// fieldable reports whether s can be a name or a role in a users file.
func fieldable(s string) bool {
	return chat.ValidUsername(s) && !strings.Contains(s, ":") && !strings.HasPrefix(s, "#")
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// readLine returns the first line of r without its end.
func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPasswordLine)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}
