package docs_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/reto10/chat/test/docs"
)

// figures returns the medians of this server in docs/bench/bench.json, by measure.
func figures(t *testing.T) map[string]float64 {
	t.Helper()
	var file struct {
		Measures []struct {
			ID      string `json:"id"`
			Servers map[string]struct {
				Median float64 `json:"median"`
			} `json:"servers"`
		} `json:"measures"`
	}
	if err := json.Unmarshal([]byte(readFile(t, "docs/bench/bench.json")), &file); err != nil {
		t.Fatal(err)
	}
	of := make(map[string]float64)
	for _, m := range file.Measures {
		if ours, ok := m.Servers["chat"]; ok {
			of[m.ID] = ours.Median
		}
	}
	return of
}

// twoDigits formats a figure with two significant digits.
func twoDigits(x float64) string {
	if x < 0.01 {
		return "under 0.01"
	}
	unit := math.Pow(10, math.Floor(math.Log10(x))-1)
	return strconv.FormatFloat(math.Round(x/unit)*unit, 'f', max(0, -int(math.Floor(math.Log10(unit)+1e-9))), 64)
}

// TestSizesAreThoseOfTheBench computes the tables of sizes in the guides from the
// measurements in bench.json.
func TestSizesAreThoseOfTheBench(t *testing.T) {
	const (
		closing = 5.0       // seconds for the last to answer a close frame
		kernel  = 4         // KiB a socket, as in the guide
		history = 64 * 1024 // KiB
	)
	f := figures(t)
	cost := func(title, id, unit string, times float64) []string {
		plain, overTLS := f[id]*times, f["tls."+strings.TrimPrefix(id, "fanout.")]*times
		if plain <= 0 || overTLS <= 0 {
			t.Fatalf("no %s, alone and over TLS, in bench.json", id)
		}
		return []string{title, twoDigits(plain) + " " + unit, twoDigits(overTLS) + " " + unit}
	}
	want := [][]string{
		cost("an idle socket", "memory.raw", "KiB", 1),
		cost("accepting a socket", "accept", "µs", 1),
		cost("a delivery of one message to 15,000", "fanout.1", "µs", f["scaling.cpu.growth"]),
		cost("a delivery in a burst of 16", "fanout.16", "µs", 1),
		cost("a command of an idle client", "in.idle", "µs", 1),
	}
	for _, e := range []struct {
		title      string
		tls        bool
		sockets    float64
		deliveries float64
	}{
		{"an office, TLS in chatd, a message a minute to all", true, 2_000, 2_000. / 60},
		{"a site behind a proxy, a message a second to all", false, 20_000, 20_000},
		{"an event behind a proxy, five a second to all", false, 50_000, 250_000},
		{"rooms of 50 behind a proxy, 2,000 a second in all", false, 100_000, 100_000},
	} {
		prefix, alone := "", f["fanout.1"]
		if e.tls {
			prefix, alone = "tls.", f["tls.1"]
		}
		want = append(want, []string{
			e.title,
			thousands(e.sockets),
			thousands(math.Round(e.deliveries)),
			twoDigits((e.sockets*f[prefix+"memory.raw"]+history)/1024) + " MiB",
			twoDigits(e.sockets*kernel/1024) + " MiB",
			twoDigits(e.deliveries * alone * f["scaling.cpu.growth"] / 1e6),
			twoDigits(e.sockets*f[prefix+"accept"]/1e6) + " s",
		})
	}
	for _, e := range []struct{ sockets, drain float64 }{{5_000, 10}, {20_000, 20}, {50_000, 60}} {
		left := e.drain * 0.9 // the rest is for HTTP
		spread := min(left*0.8, left-closing-left/20)
		want = append(want, []string{
			thousands(e.sockets) + " sockets",
			fmt.Sprintf("`%.0fs`", e.drain),
			twoDigits(spread) + " s",
			thousands(math.Round(e.sockets/spread/100) * 100),
			twoDigits(e.sockets / spread * f["tls.accept"] / 1e6),
		})
	}
	// Titles are prose, and may change: the figures beside them are compared.
	documented := make(map[string]bool)
	for _, guide := range []string{"docs/operating.md", "docs/scaling.md"} {
		for _, row := range docs.Read(t, root, guide).Rows() {
			documented[strings.Join(row[1:], " | ")] = true
		}
	}
	for _, row := range want {
		if cells := strings.Join(row[1:], " | "); !documented[cells] {
			t.Errorf("no row of the guides has the figures of bench.json for %s: | %s |", row[0], cells)
		}
	}
}

func thousands(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
