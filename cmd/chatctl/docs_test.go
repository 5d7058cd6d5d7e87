package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/docs"
)

// TestTheDocumentListsEveryFlag compares the tables of docs/chatctl.md with the
// commands' help.
func TestTheDocumentListsEveryFlag(t *testing.T) {
	t.Parallel()
	var shared []string // the flags of all commands, from sections about none of them
	sections := map[string]string{}
	for section := range strings.SplitSeq(docs.Read(t, "../..", "docs/chatctl.md").Text, "\n## ") {
		heading, body, _ := strings.Cut(section, "\n")
		sections[heading] = body
		if commandNamed(heading) == nil {
			shared = append(shared, flagsOfTable(body)...)
		}
	}
	for _, c := range commands {
		documented := slices.Concat(shared, flagsOfTable(sections[c.name]))
		slices.Sort(documented)
		help, stderr, code := ctl(t).RunToEnd(t, nil, "help", c.name)
		if code != 0 {
			t.Fatal(stderr)
		}
		if diff := cmp.Diff(flagsOfHelp(help), documented); diff != "" {
			t.Errorf("flags of %s (-code +document):\n%s", c.name, diff)
		}
		if !strings.Contains(sections[c.name], strings.TrimSpace("chatctl "+c.name+" [flags] "+c.args)+"`") {
			t.Errorf("%s: its usage is not in the document", c.name)
		}
	}
}

// TestCommandsInDocumentsExist looks for the commands of chatctl that documents show,
// and for their flags.
func TestCommandsInDocumentsExist(t *testing.T) {
	t.Parallel()
	typed := regexp.MustCompile(`(?:^|[ /])chatctl ([a-z]+)((?: (?:-[a-z-]+|'[^']*'|[^-\s|>&;]\S*))*)`)
	flag := regexp.MustCompile(`(?:^| )(-[a-z][a-z-]*)`)
	helps := make(map[string]string)
	for _, c := range commands {
		helps[c.name], _, _ = ctl(t).RunToEnd(t, nil, "help", c.name)
	}
	shown := 0
	for _, d := range docs.All(t, "../..") {
		for _, command := range d.Commands() {
			for _, m := range typed.FindAllStringSubmatch(command, -1) {
				if m[1] == "help" {
					continue
				}
				shown++
				help, ok := helps[m[1]]
				if !ok {
					t.Errorf("%s: %s: chatctl has no such command", d.Path, command)
				}
				for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
					if ok && !regexp.MustCompile(`(?m)^  `+f[1]+`\b`).MatchString(help) {
						t.Errorf("%s: %s: it has no flag %s", d.Path, command, f[1])
					}
				}
			}
		}
	}
	if shown == 0 {
		t.Error("no document shows a command of chatctl: is this test still able to find one?")
	}
}

// commandNamed returns the command with this name, or nil.
func commandNamed(name string) *command {
	for i := range commands {
		if commands[i].name == name {
			return &commands[i]
		}
	}
	return nil
}

// flagsOfHelp returns flags such as "-url address CHATCTL_URL https://localhost:8443", sorted.
func flagsOfHelp(help string) (flags []string) {
	for _, m := range regexp.MustCompile(`(?m)^  (-[a-z-]+(?: \S+)?)(?:   (CHATCTL_\w+))?(?:   default (\S+))?$`).FindAllStringSubmatch(help, -1) {
		flags = append(flags, strings.Join(strings.Fields(strings.Join(m[1:], " ")), " "))
	}
	slices.Sort(flags)
	return flags
}

// flagsOfTable returns flags in the same form, from the rows of a table that begin with
// a flag and continue with a variable or a default.
func flagsOfTable(section string) (flags []string) {
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if !strings.HasPrefix(cells[0], "`-") {
			continue
		}
		flag := strings.Trim(cells[0], "`")
		for _, cell := range cells[1 : len(cells)-1] {
			flag += " " + strings.Trim(cell, "` ")
		}
		flags = append(flags, strings.Join(strings.Fields(flag), " "))
	}
	return flags
}
