package daemon

import (
	"strings"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/cli"
)

// Values of -registry and -history.
const (
	InMemory = "memory" // in this process
	Off      = "off"    // -history only: no messages are kept
)

// Storage says where a server keeps users and messages. Registry and History may contain
// a password after their [Kind].
type Storage struct {
	Registry string        // InMemory or one of Program.Registries
	History  string        // InMemory, Off or one of Program.Histories; "" when not given
	Count    int           // messages kept of each channel; 0 for the history's default
	Age      time.Duration // how long messages are kept; 0 for the history's default
}

// Kind returns the part of a setting that never contains a password: all before its
// first colon.
func Kind(setting string) string {
	kind, _, _ := strings.Cut(setting, ":")
	return kind
}

func (s Storage) validate() error {
	if s.History == Off && (s.Count > 0 || s.Age > 0) {
		return cli.Usagef("-history off keeps no messages: remove -history-count and -history-age")
	}
	return nil
}

// requireInMemory returns an error if a program without backends is to use one.
func (s Storage) requireInMemory(name string) error {
	const elsewhere = "-%s %s: %s keeps everything in memory; use chatd-cluster"
	switch {
	case s.Registry != InMemory:
		return cli.Usagef(elsewhere, "registry", Kind(s.Registry), name)
	case s.History != "" && s.History != InMemory && s.History != Off:
		return cli.Usagef(elsewhere, "history", Kind(s.History), name)
	}
	return nil
}

// option returns the option for a history of this process, or nil for others.
func (s Storage) option() chat.Option {
	switch {
	case s.History == Off:
		return chat.WithoutHistory()
	case s.History == InMemory, s.History == "" && s.Registry == InMemory:
		return chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: s.Count, Age: s.Age}))
	}
	return nil
}

// redactArgs returns a command line without the passwords in -registry and -history.
func redactArgs(args []string) []string {
	shown := make([]string, len(args))
	hide := false
	for i, arg := range args {
		flag, value, has := strings.Cut(arg, "=")
		name := strings.TrimLeft(flag, "-")
		secret := name != flag && (name == "registry" || name == "history")
		switch {
		case hide:
			shown[i] = redactSetting(arg)
		case secret && has:
			shown[i] = flag + "=" + redactSetting(value)
		default:
			shown[i] = arg
		}
		hide = !hide && secret && !has // the next argument is the value
	}
	return shown
}

// redactSetting replaces what follows the [Kind] of a setting.
func redactSetting(setting string) string {
	if kind := Kind(setting); kind != setting {
		return kind + ":REDACTED"
	}
	return setting
}
