package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/reto10/chat/test/bench/stats"
)

// Table writes one line per measure, in Markdown: each server's median with the lowest and
// the highest of its runs and, for other servers, ours divided by theirs; then the targets
// and whether they are met.
func Table(w io.Writer, r Results, kinds []string) error { return table(w, r, nil, kinds) }

// table is Table with a column for the dates, unless they are nil.
func table(w io.Writer, r Results, dates Dates, kinds []string) error {
	kinds = r.Measured(kinds)
	lines := [][]string{append(append([]string{"measure", "unit"}, kinds...), "target", "holds")}
	if dates != nil {
		lines[0] = append(lines[0], "measured")
	}
	for _, m := range Measures {
		if r[m.ID] == nil {
			continue
		}
		line := []string{m.Title, m.Unit}
		for _, kind := range kinds {
			line = append(line, r.cell(m.ID, kind))
		}
		var targets, holds []string
		for _, t := range m.Targets {
			v, ok := r.Judge(m.ID, t)
			if !ok {
				continue
			}
			answer := "yes"
			if !v.Holds {
				answer = "NO"
			}
			text := v.Target
			if t.of != "" {
				text += ": " + v.Figure.String()
			}
			targets, holds = append(targets, text), append(holds, answer)
		}
		line = append(line, strings.Join(targets, "; "), strings.Join(holds, "; "))
		if dates != nil {
			line = append(line, dates[m.ID])
		}
		lines = append(lines, line)
	}
	return markdown(w, lines)
}

// cell is one server's figure and how ours compares.
func (r Results) cell(measure, kind string) string {
	s := stats.Of(r[measure][kind])
	if kind == Ours || !s.Valid() {
		return s.String()
	}
	ratio := stats.Of(stats.Pairwise(r[measure][Ours], r[measure][kind], stats.Ratio))
	if !ratio.Valid() {
		return s.String()
	}
	return fmt.Sprintf("%s ×%s", s, stats.Figure(ratio.Median))
}

// markdown writes a table whose columns line up.
func markdown(w io.Writer, lines [][]string) error {
	width := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	row := func(cell func(i int) string) {
		for i := range width {
			text := cell(i)
			b.WriteString("| " + text + strings.Repeat(" ", width[i]-utf8.RuneCountInString(text)+1))
		}
		b.WriteString("|\n")
	}
	for n, line := range lines {
		row(func(i int) string { return line[i] })
		if n == 0 {
			row(func(i int) string { return strings.Repeat("-", width[i]) })
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
