package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/reto10/chat/test/bench/stats"
)

// The picture's measures in pixels.
const (
	panelWidth  = 300
	panelHead   = 34
	barHeight   = 18
	labelWidth  = 96
	valueWidth  = 46
	plotHeight  = 170
	columns     = 3
	margin      = 16
	colourOurs  = "#1f77b4"
	colourOther = "#b8bfc6"
	colourText  = "#24292f"
)

// seriesColours are the colours of the lines in a plot, used in rotation.
var seriesColours = []string{colourOurs, "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"}

// bars are the measures that get a panel of bars.
var bars = []string{"fanout.1", "fanout.16", "fanout.64", "tls.1", "tls.16", "tls.64", "memory", "tls.memory", "accept",
	"in.idle", "latency.last50", "latency.last"}

// plots are the series over the number of sockets that get a panel of lines.
var plots = []struct{ prefix, title, unit string }{
	{"scaling.cpu.", "CPU per delivery, by sockets", "µs"},
	{"scaling.memory.", "memory per socket, by sockets", "KiB"},
}

// Picture draws the results as an SVG.
func Picture(s Setting, r Results, kinds []string) string {
	var panels []string
	height := panelHead + len(r.Measured(kinds))*barHeight + margin
	for _, id := range bars {
		if i := slices.IndexFunc(Measures, func(m Measure) bool { return m.ID == id }); i >= 0 && r[id] != nil {
			panels = append(panels, barPanel(Measures[i], r, kinds))
		}
	}
	for _, p := range plots {
		if panel, ok := linePanel(p.prefix, p.title+", "+p.unit, r, kinds); ok {
			panels = append(panels, panel)
			height = max(height, panelHead+plotHeight+2*margin)
		}
	}
	lines := (len(panels) + columns - 1) / columns
	width := columns*(panelWidth+margin) + margin
	total := margin*4 + lines*height
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12" fill="%s">`+"\n",
		width, total, colourText)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, total)
	text(&b, margin, margin+6, "", fmt.Sprintf("%s · %s, one core for the server · Linux %s · %s",
		s.Date.Format("2006-01-02"), s.CPU, s.Kernel, s.Go))
	text(&b, margin, margin+22, "", "lower is better; bars are medians, lines across them all runs")
	for i, panel := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)">%s</g>`+"\n",
			margin+i%columns*(panelWidth+margin), margin*3+i/columns*height, panel)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// barPanel shows a measure of each server.
func barPanel(m Measure, r Results, kinds []string) string {
	var b strings.Builder
	text(&b, 0, 18, `font-weight="bold"`, fmt.Sprintf("%s, %s", m.Title, m.Unit))
	most := 0.0
	for _, runs := range r[m.ID] {
		if s := stats.Of(runs); s.Valid() {
			most = max(most, s.Max)
		}
	}
	if most == 0 {
		most = 1
	}
	scale := float64(panelWidth-labelWidth-valueWidth) / most
	y := panelHead - 6
	for _, kind := range kinds {
		s := stats.Of(r[m.ID][kind])
		if !s.Valid() {
			continue
		}
		colour := colourOther
		if kind == Ours {
			colour = colourOurs
		}
		text(&b, 0, y+13, "", kind)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y+2, s.Median*scale, barHeight-4, colour)
		fmt.Fprintf(&b, `<path d="M%.1f %dH%.1f" stroke="%s"/>`, labelWidth+s.Min*scale, y+barHeight/2, labelWidth+s.Max*scale, colourText)
		text(&b, labelWidth+int(s.Max*scale)+4, y+13, "", stats.Figure(s.Median))
		y += barHeight
	}
	return b.String()
}

// point is a figure of a series.
type point struct{ x, y float64 }

// linePanel shows a series over the number of sockets, one line a server.
func linePanel(prefix, title string, r Results, kinds []string) (string, bool) {
	series := make(map[string][]point)
	var right, top float64
	for id, servers := range r {
		x, err := strconv.ParseFloat(strings.TrimPrefix(id, prefix), 64)
		if !strings.HasPrefix(id, prefix) || err != nil {
			continue
		}
		for kind, runs := range servers {
			if y := stats.Of(runs).Median; !math.IsNaN(y) {
				series[kind] = append(series[kind], point{x, y})
				right, top = max(right, x), max(top, y)
			}
		}
	}
	if len(series) == 0 {
		return "", false
	}
	var b strings.Builder
	text(&b, 0, 18, `font-weight="bold"`, title)
	const left = 30
	at := func(p point) (x, y float64) {
		return left + p.x/right*(panelWidth-left-70), panelHead + plotHeight - p.y/top*plotHeight
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="%s"/>`, left, panelHead, panelHead+plotHeight, panelWidth-60, colourOther)
	text(&b, 0, panelHead+8, "", stats.Figure(top))
	text(&b, left, panelHead+plotHeight+16, "", "0")
	text(&b, panelWidth-90, panelHead+plotHeight+16, "", stats.Figure(right))
	n := 0
	for _, kind := range kinds {
		points := series[kind]
		if points == nil {
			continue
		}
		slices.SortFunc(points, func(a, b point) int { return int(a.x - b.x) })
		colour := seriesColours[n%len(seriesColours)]
		n++
		var path strings.Builder
		for i, p := range points {
			x, y := at(p)
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], x, y)
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`, x, y, colour)
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`, path.String(), colour)
		x, y := at(points[len(points)-1])
		text(&b, int(x)+6, int(y)+4, `fill="`+colour+`"`, kind)
	}
	return b.String(), true
}

func text(b *strings.Builder, x, y int, attributes, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" %s>%s</text>`, x, y, attributes, html.EscapeString(s))
}
