package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Environment returns the variable to read when a flag is not given, "" for none. A nil
// Environment has no variables.
type Environment func(flagName string) (variable string)

// Prefixed returns an [Environment] whose variables are a prefix and the flag's name: with
// CHATD_ that of -tls-cert is CHATD_TLS_CERT.
func Prefixed(prefix string) Environment {
	return func(flagName string) string {
		return prefix + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
	}
}

func (env Environment) variable(flagName string) string {
	if env == nil {
		return ""
	}
	return env(flagName)
}

// Fill sets the flags that are not given from their variables. An empty variable counts as
// unset. It returns, by flag name, what set each flag: "-addr" or "CHATD_ADDR". The error
// is a [UsageError].
func (env Environment) Fill(flags *flag.FlagSet, lookup func(string) (string, bool)) (given map[string]string, err error) {
	given = make(map[string]string)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = "-" + f.Name })
	flags.VisitAll(func(f *flag.Flag) {
		name := env.variable(f.Name)
		if err != nil || name == "" || given[f.Name] != "" {
			return
		}
		text, _ := lookup(name)
		if text == "" {
			return
		}
		if bad := flags.Set(f.Name, text); bad != nil {
			err = Usagef("invalid value %q for %s (-%s): %w", text, name, f.Name, bad)
		}
		given[f.Name] = name
	})
	return given, err
}

// PrintFlags prints the flags: name, variable and default on one line, then the usage.
func PrintFlags(w io.Writer, flags *flag.FlagSet, env Environment) {
	flags.VisitAll(func(f *flag.Flag) {
		arg, usage := flag.UnquoteUsage(f)
		facts := []string{strings.TrimSpace("-" + f.Name + " " + arg)}
		if name := env.variable(f.Name); name != "" {
			facts = append(facts, name)
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

// wrap breaks text between words, into lines of at most width bytes.
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

// setting is a flag.Value that parse validates and converts.
type setting[T any] struct {
	to    *T
	text  string
	parse func(string) (T, error)
}

func (s *setting[T]) String() string { return s.text }

func (s *setting[T]) Set(text string) error {
	v, err := s.parse(text)
	if err != nil {
		return err
	}
	*s.to, s.text = v, text
	return nil
}

// Var defines a flag that parse validates and converts. With byDefault "" the flag starts
// as the zero T.
func Var[T any](flags *flag.FlagSet, to *T, name, byDefault string, parse func(string) (T, error), usage string) {
	s := &setting[T]{to: to, parse: parse}
	if byDefault != "" {
		if err := s.Set(byDefault); err != nil {
			panic(fmt.Sprintf("cli: default of -%s: %v", name, err))
		}
	}
	flags.Var(s, name, usage)
}

// ParsePositive reads a duration above zero.
func ParsePositive(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, errors.New("not a duration such as 90s or 15m")
	case d <= 0:
		return 0, errors.New("not more than zero")
	}
	return d, nil
}

// AtLeast returns a function like [ParsePositive] that rejects durations below least.
func AtLeast(least time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		d, err := ParsePositive(s)
		if err == nil && d < least {
			err = fmt.Errorf("less than %v", least)
		}
		return d, err
	}
}

// ParseLimit reads a number above zero, or 0 for no limit.
func ParseLimit(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, errors.New("not a number, or 0 for no limit")
	}
	return n, nil
}

// ParseCount reads a number above zero.
func ParseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, errors.New("not a number above zero")
	}
	return n, nil
}
