package docs

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// Differences describes where a translation differs from the original in what does
// not depend on the language: the levels of headings, blocks of code, code in the text
// of each section, numbers and code in each row of a table, and the targets of links.
// A translation of README.md is called README.es.md; links from each to the other do
// not count.
func Differences(original, translation Document) (differences []string) {
	compare := func(what string, want, got any) {
		if diff := cmp.Diff(want, got); diff != "" {
			differences = append(differences, fmt.Sprintf("%s (-%s +%s):\n%s", what, original.Path, translation.Path, diff))
		}
	}
	compare("levels of the headings", levels(original), levels(translation))
	compare("blocks of code", code(original), code(translation))
	compare("places that links lead to", places(original), places(translation))
	compare("numbers and code in tables", facts(original), facts(translation))
	a, b := sections(original), sections(translation)
	for i := range min(len(a), len(b)) {
		compare("code in the text of section "+a[i].title, a[i].spans, b[i].spans)
	}
	return differences
}

func levels(d Document) (levels []int) {
	for _, h := range d.Headings() {
		levels = append(levels, h.Level)
	}
	return levels
}

func code(d Document) (code []string) {
	for _, b := range d.Blocks() {
		code = append(code, b.Lang+"\n"+b.Code)
	}
	return code
}

// places returns the files and addresses that links lead to, without anchors. They are
// sorted, since languages order words differently.
func places(d Document) (places []string) {
	own, _, _ := strings.Cut(path.Base(d.Path), ".")
	for _, l := range d.Links() {
		to, _, _ := strings.Cut(l.To, "#")
		if name := path.Base(to); !strings.HasPrefix(name, own+".") {
			places = append(places, to)
		}
	}
	slices.Sort(places)
	return places
}

// number matches a number as either language writes it: 1.15 or 1,15, 100,000 or 100.000.
var number = regexp.MustCompile(`\d+(?:[.,\x{a0}\x{202f}]\d+)*`)

// facts returns the code and the numbers of each row of a table, by column: these are
// the same in all languages.
func facts(d Document) (facts [][]string) {
	for _, cells := range d.Rows() {
		row := []string{}
		for i, cell := range cells {
			for _, s := range spansIn(cell) {
				row = append(row, fmt.Sprintf("%d: `%s`", i+1, s))
			}
			for _, n := range number.FindAllString(span.ReplaceAllString(cell, ""), -1) {
				digits := regexp.MustCompile(`\D`).ReplaceAllString(n, "")
				row = append(row, fmt.Sprintf("%d: %s", i+1, digits))
			}
		}
		slices.Sort(row)
		facts = append(facts, row)
	}
	return facts
}

type section struct {
	title string
	spans []string // each once, sorted
}

func sections(d Document) (sections []section) {
	at := heading.FindAllStringSubmatchIndex(d.prose, -1)
	for i, m := range at {
		end := len(d.prose)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		spans := spansIn(d.prose[m[0]:end])
		slices.Sort(spans)
		sections = append(sections, section{d.prose[m[4]:m[5]], slices.Compact(spans)})
	}
	return sections
}
