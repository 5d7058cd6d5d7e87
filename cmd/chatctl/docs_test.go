package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheDocumentListsEveryFlag compares the tables of docs/chatctl.md with what
// the commands' help says.
func TestTheDocumentListsEveryFlag(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/chatctl.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for section := range strings.SplitSeq(string(text), "\n## ") {
		heading, body, _ := strings.Cut(section, "\n")
		sections[heading] = body
	}
	const shared = "Where and as whom"
	for _, c := range commands {
		documented := append(flagsOfTable(sections[shared]), flagsOfTable(sections[c.name])...)
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

// flagsOfHelp are "-url address CHATCTL_URL https://localhost:8443", sorted.
func flagsOfHelp(help string) (flags []string) {
	for _, m := range regexp.MustCompile(`(?m)^  (-[a-z-]+(?: \S+)?)(?:   (CHATCTL_\w+))?(?:   default (\S+))?$`).FindAllStringSubmatch(help, -1) {
		flags = append(flags, strings.Join(strings.Fields(strings.Join(m[1:], " ")), " "))
	}
	slices.Sort(flags)
	return flags
}

// flagsOfTable are likewise, of the rows of a table that begin with a flag and go
// on with a variable or a default.
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
