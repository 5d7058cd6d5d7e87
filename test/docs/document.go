// Package docs reads the Markdown files of this repository. Tests use it to compare
// what can mislead in documents with the code: commands, snippets, tables, names and
// links. They compare no sentences.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// Document is a Markdown file.
type Document struct {
	Path string // from the repository's root, with slashes
	Text string

	prose string // Text with blank lines in place of its code blocks
}

// All returns the Markdown files below root, sorted by path.
func All(t testing.TB, root string) (all []Document) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (name == "node_modules" || name == "testdata" || strings.HasPrefix(name, ".")):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ".md":
			return nil
		}
		inside, err := filepath.Rel(root, path)
		if err == nil {
			all = append(all, Read(t, root, filepath.ToSlash(inside)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Read reads the file at path below root.
func Read(t testing.TB, root, path string) Document {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return New(path, string(text))
}

// New returns a document with this text.
func New(path, text string) Document {
	prose := block.ReplaceAllStringFunc(text, func(code string) string {
		return strings.Repeat("\n", strings.Count(code, "\n"))
	})
	return Document{Path: path, Text: text, prose: prose}
}

// Block is a fenced block of code.
type Block struct {
	Line int    // of the first line of code, counted from 1
	Lang string // the word after the fence, or ""
	Code string
}

var block = regexp.MustCompile("(?ms)^```([a-z0-9]*)\n(.*?)^```$")

// Blocks returns the document's fenced blocks, in order.
func (d Document) Blocks() (blocks []Block) {
	for _, at := range block.FindAllStringSubmatchIndex(d.Text, -1) {
		blocks = append(blocks, Block{
			Line: 1 + strings.Count(d.Text[:at[4]], "\n"),
			Lang: d.Text[at[2]:at[3]],
			Code: d.Text[at[4]:at[5]],
		})
	}
	return blocks
}

// Heading is a heading of a document.
type Heading struct {
	Level  int
	Text   string
	Anchor string // the anchor that GitHub makes of it
}

var heading = regexp.MustCompile(`(?m)^(#+) (.*)$`)

// Headings returns the document's headings, in order.
func (d Document) Headings() (headings []Heading) {
	times := make(map[string]int)
	for _, m := range heading.FindAllStringSubmatch(d.prose, -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.M, r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[2])
		if n := times[anchor]; n > 0 {
			anchor += "-" + strconv.Itoa(n)
		}
		times[anchor]++
		headings = append(headings, Heading{len(m[1]), m[2], anchor})
	}
	return headings
}

// Link is a link or a picture of a document.
type Link struct {
	Line int
	To   string
}

var (
	link = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	span = regexp.MustCompile("`[^`]+`")
)

// Links returns the document's links in order, without those inside code.
func (d Document) Links() (links []Link) {
	text := span.ReplaceAllStringFunc(d.prose, func(code string) string {
		return strings.Map(func(r rune) rune {
			if r == '\n' {
				return r
			}
			return '.'
		}, code)
	})
	for _, at := range link.FindAllStringSubmatchIndex(text, -1) {
		links = append(links, Link{1 + strings.Count(text[:at[0]], "\n"), text[at[2]:at[3]]})
	}
	return links
}

// Spans returns the pieces of code in the text, without their backticks.
func (d Document) Spans() (spans []string) { return spansIn(d.prose) }

func spansIn(text string) (spans []string) {
	for _, code := range span.FindAllString(text, -1) {
		spans = append(spans, strings.Join(strings.Fields(strings.Trim(code, "`")), " "))
	}
	return spans
}

// Commands lists what a reader might type: the lines of the document's blocks for a
// shell, and the pieces of code in its text.
func (d Document) Commands() []string {
	lines := d.Spans()
	for _, b := range d.Blocks() {
		if b.Lang == "" || b.Lang == "sh" || b.Lang == "bash" {
			lines = slices.AppendSeq(lines, strings.SplitSeq(b.Code, "\n"))
		}
	}
	return lines
}

var row = regexp.MustCompile(`(?m)^\|(.*)\|$`)

// Rows returns the cells of each row of all tables, in order, without the lines that
// separate a table's head from its body.
func (d Document) Rows() (rows [][]string) {
	for _, m := range row.FindAllStringSubmatch(d.prose, -1) {
		if strings.Trim(m[1], "|-: ") == "" && strings.Contains(m[1], "-") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.ReplaceAll(m[1], `\|`, "\x00"), "|") {
			cells = append(cells, strings.ReplaceAll(strings.TrimSpace(cell), "\x00", "|"))
		}
		rows = append(rows, cells)
	}
	return rows
}
