package daemon

import (
	"strings"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/cli"
)

// What -registry and -history say of a server that keeps nothing elsewhere, and
// of one that keeps no messages at all.
const (
	InMemory = "memory"
	Off      = "off"
)

// Storage is where a server is to keep what outlives it or is shared with other
// nodes. What Registry and History hold beyond their [Kind] may hold a password.
type Storage struct {
	Registry string        // InMemory or a program's own
	History  string        // InMemory, Off or a program's own; "" when nothing was said
	Count    int           // messages a channel, 0 for what the history does by itself
	Age      time.Duration // of a message, 0 for what the history does by itself
}

// Kind is what of a setting can be shown to anybody: all before its first colon.
func Kind(setting string) string {
	kind, _, _ := strings.Cut(setting, ":")
	return kind
}

func (s Storage) validate() error {
	if s.History == Off && (s.Count > 0 || s.Age > 0) {
		return cli.Usagef("-history off keeps no messages, so there is no -history-count and -history-age of them")
	}
	return nil
}

// alone reports, as an error, that a program without backends cannot do it.
func (s Storage) alone(name string) error {
	const elsewhere = "-%s %s: %s keeps everything in memory, chatd-cluster has the rest"
	switch {
	case s.Registry != InMemory:
		return cli.Usagef(elsewhere, "registry", Kind(s.Registry), name)
	case s.History != "" && s.History != InMemory && s.History != Off:
		return cli.Usagef(elsewhere, "history", Kind(s.History), name)
	}
	return nil
}

// option is that of a history that needs nothing elsewhere; nil for others.
func (s Storage) option() chat.Option {
	switch {
	case s.History == Off:
		return chat.WithoutHistory()
	case s.History == InMemory, s.History == "" && s.Registry == InMemory:
		return chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: s.Count, Age: s.Age}))
	}
	return nil
}

// hideStorage is a command line without what follows the kind of a storage.
func hideStorage(args []string) []string {
	shown := make([]string, len(args))
	hide := false
	for i, arg := range args {
		flag, value, has := strings.Cut(arg, "=")
		name := strings.TrimLeft(flag, "-")
		secret := name != flag && (name == "registry" || name == "history")
		switch {
		case hide:
			shown[i] = hidden(arg)
		case secret && has:
			shown[i] = flag + "=" + hidden(value)
		default:
			shown[i] = arg
		}
		hide = !hide && secret && !has
	}
	return shown
}

func hidden(setting string) string {
	if kind := Kind(setting); kind != setting {
		return kind + ":REDACTED"
	}
	return setting
}
