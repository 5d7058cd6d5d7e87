package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/bench/peer"
)

// sample has two runs of each.
func sample() Results {
	r := make(Results)
	for kind, runs := range map[string][]float64{
		"chat": {8, 9}, "write": {8, 10}, "gorilla": {10, 12}, "centrifuge": {16, 9},
	} {
		for i, v := range runs {
			r.Set("fanout.1", kind, i, v)
			r.Set("scaling.cpu.1000", kind, i, v)
			r.Set("scaling.cpu.5000", kind, i, v+1)
		}
	}
	return r
}

func TestJudge(t *testing.T) {
	tests := []struct {
		target Target
		figure float64
		holds  bool
	}{
		{times(1.15, floor), 0.95, true},
		{times(0.5, "gorilla"), 0.775, false},
		{times(1, best), 0.9, true}, // 8 of 10, 9 of 9
		{over("gorilla", 1), -2.5, true},
		{over("gorilla", -3), -2.5, false},
		{atMost(8.5), 8.5, true},
		{atMost(8), 8.5, false},
		{atLeast(8.5), 8.5, true},
		{atLeast(9), 8.5, false},
	}
	for _, tt := range tests {
		v, ok := sample().Judge("fanout.1", tt.target)
		if !ok || math.Abs(v.Figure.Median-tt.figure) > 1e-9 || v.Holds != tt.holds {
			t.Errorf("%v: %+v, %v, want %v and %v", tt.target, v, ok, tt.figure, tt.holds)
		}
	}
	if v, ok := sample().Judge("fanout.1", times(1, "melody")); ok {
		t.Errorf("judged by what was not measured: %+v", v)
	}
}

func TestSetLeavesGaps(t *testing.T) {
	r := make(Results)
	r.Set("accept", "gws", 2, 7)
	if runs := r["accept"]["gws"]; len(runs) != 3 || !math.IsNaN(runs[0]) || !math.IsNaN(runs[1]) || runs[2] != 7 {
		t.Errorf("runs = %v, want two gaps and 7", runs)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := Table(&b, sample(), peer.Kinds); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want a head, a rule and one measure:\n%s", len(lines), b.String())
	}
	for _, want := range []string{"8.50 (8–9)", "11 (10–12) ×0.775", "≤ 1.15 × write: 0.950 (0.900–1)", "yes; yes"} {
		if !strings.Contains(lines[2], want) {
			t.Errorf("no %q in %s", want, lines[2])
		}
	}
}

func TestPictureIsXML(t *testing.T) {
	svg := Picture(Setting{Date: time.Unix(0, 0), CPU: "A & B <1>"}, sample(), peer.Kinds)
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	if n := strings.Count(svg, "<circle"); n != 8 {
		t.Errorf("%d points, want two for each of four servers", n)
	}
}

func TestRowsThatAreNotRunAgainAreKept(t *testing.T) {
	dir := t.TempDir()
	before, dates, err := Read(dir)
	if err != nil || len(before) > 0 {
		t.Fatalf("of an empty directory: %v, %v", before, err)
	}
	day := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	dates.Update(sample(), day)
	if err := Write(dir, Setting{Date: day}, sample(), dates, peer.Kinds); err != nil {
		t.Fatal(err)
	}
	all, dates, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), all); diff != "" {
		t.Errorf("read (-written +read):\n%s", diff)
	}
	newer := make(Results)
	newer.Set("fanout.1", "chat", 0, 1)
	all.Update(newer)
	want := sample()
	want["fanout.1"] = map[string][]float64{"chat": {1}}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
	dates.Update(newer, day.AddDate(0, 0, 4))
	if err := Write(dir, Setting{Date: day.AddDate(0, 0, 4)}, all, dates, peer.Kinds); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "bench.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "| 2026-11-29 |") {
		t.Errorf("no line that was measured on the second day:\n%s", page)
	}
}
