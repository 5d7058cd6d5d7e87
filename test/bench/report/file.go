package report

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reto10/chat/test/bench/stats"
)

// Setting is where and when a report was made.
type Setting struct {
	Date     time.Time         `json:"date"`
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	Versions map[string]string `json:"versions"` // of the peers' modules
	Quick    bool              `json:"quick,omitempty"`
}

// peers are the modules whose versions a report states.
var peers = []string{"github.com/centrifugal/centrifuge", "github.com/coder/websocket", "github.com/gorilla/websocket",
	"github.com/lxzan/gws", "github.com/olahol/melody", "nhooyr.io/websocket"}

// Here returns this machine and the peers' modules in the servers' programs, which are given
// by their paths.
func Here(programs ...string) (Setting, error) {
	s := Setting{
		Date:     time.Now().UTC().Truncate(time.Second),
		CPU:      cpuModel(),
		Cores:    runtime.NumCPU(),
		Go:       runtime.Version(),
		Versions: make(map[string]string),
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		s.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return s, fmt.Errorf("report: a server's modules: %w", err)
		}
		for _, m := range info.Deps {
			if slices.Contains(peers, m.Path) {
				s.Versions[m.Path] = m.Version
			}
		}
	}
	return s, nil
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // it was only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// figure is one server's part of a measure in JSON.
type figure struct {
	stats.Summary
	Runs []float64 `json:"runs"` // without failed ones
}

// measured is a measure in JSON.
type measured struct {
	ID      string            `json:"id"`
	Date    string            `json:"date"`
	Title   string            `json:"title,omitempty"`
	Unit    string            `json:"unit,omitempty"`
	Servers map[string]figure `json:"servers"`
	Targets []Verdict         `json:"targets,omitempty"`
}

// Dates are the days on which measures were measured, by the measure's id.
type Dates map[string]string

// Update sets the date of the measures of newer.
func (d Dates) Update(newer Results, on time.Time) {
	for id := range newer {
		d[id] = on.Format(time.DateOnly)
	}
}

// Write writes bench.json, bench.svg and bench.md into a directory.
func Write(dir string, s Setting, r Results, dates Dates, kinds []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	report := struct {
		Setting
		Measures []measured `json:"measures"`
	}{Setting: s}
	for _, m := range r.inOrder() {
		one := measured{ID: m.ID, Date: dates[m.ID], Title: m.Title, Unit: m.Unit, Servers: make(map[string]figure)}
		for kind, runs := range r[m.ID] {
			if sum := stats.Of(runs); sum.Valid() {
				one.Servers[kind] = figure{sum, slices.DeleteFunc(slices.Clone(runs), math.IsNaN)}
			}
		}
		for _, t := range m.Targets {
			if v, ok := r.Judge(m.ID, t); ok {
				one.Targets = append(one.Targets, v)
			}
		}
		report.Measures = append(report.Measures, one)
	}
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.svg"), []byte(Picture(s, r, kinds)), 0o644); err != nil {
		return err
	}
	var page bytes.Buffer
	if err := Page(&page, s, r, dates, kinds); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bench.md"), page.Bytes(), 0o644)
}

// Read returns the results in a bench.json and their dates, without its failed runs, so that
// single rows can be measured again. Without such a file there are none.
func Read(dir string) (Results, Dates, error) {
	b, err := os.ReadFile(filepath.Join(dir, "bench.json"))
	if errors.Is(err, os.ErrNotExist) {
		return Results{}, Dates{}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var before struct {
		Measures []measured `json:"measures"`
	}
	if err := json.Unmarshal(b, &before); err != nil {
		return nil, nil, fmt.Errorf("report: reading bench.json: %w", err)
	}
	r, dates := make(Results), make(Dates)
	for _, m := range before.Measures {
		dates[m.ID] = m.Date
		for kind, f := range m.Servers {
			for i, v := range f.Runs {
				r.Set(m.ID, kind, i, v)
			}
		}
	}
	return r, dates, nil
}

// Update replaces measures by those of newer.
func (r Results) Update(newer Results) {
	maps.Copy(r, newer)
}

// Page returns the table, and where and when it was measured, in Markdown.
func Page(w io.Writer, s Setting, r Results, dates Dates, kinds []string) error {
	versions := make([]string, 0, len(s.Versions))
	for path, version := range s.Versions {
		versions = append(versions, path+" "+version)
	}
	slices.Sort(versions)
	_, err := fmt.Fprintf(w, "# What `make bench` measured\n\nLast on %s, %d cores of %s, Linux %s, %s.\n%s.\n\n"+
		"[How it measures](../../test/bench/README.md) · [bench.json](bench.json)\n\n![the same as a picture](bench.svg)\n\n",
		s.Date.Format(time.DateOnly), s.Cores, s.CPU, s.Kernel, s.Go, strings.Join(versions, ", "))
	if err != nil {
		return err
	}
	return table(w, r, dates, kinds)
}

// inOrder returns the measures with results: those of the table, then the series.
func (r Results) inOrder() []Measure {
	var all []Measure
	listed := make(map[string]bool)
	for _, m := range Measures {
		listed[m.ID] = true
		if r[m.ID] != nil {
			all = append(all, m)
		}
	}
	from := len(all)
	for id := range r {
		if !listed[id] {
			all = append(all, Measure{ID: id})
		}
	}
	slices.SortFunc(all[from:], func(a, b Measure) int { return strings.Compare(a.ID, b.ID) })
	return all
}
