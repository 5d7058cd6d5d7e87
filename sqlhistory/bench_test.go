package sqlhistory_test

import (
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reto10/chat/sqlhistory"
)

// publishers is how many append at the same time in the benchmarks.
const publishers = 64

var content = strings.Repeat("x", 128)

// BenchmarkAppend has 64 publishers each wait for a message before the next, in one
// channel or in one each.
func BenchmarkAppend(b *testing.B) {
	databases := []struct {
		name string
		open func(b *testing.B) *sqlhistory.History
	}{
		{"SQLite", func(b *testing.B) *sqlhistory.History { return inFile(b).open(b) }},
		{"SQLite-relaxed", func(b *testing.B) *sqlhistory.History {
			d := inFile(b)
			d.relaxed = true
			return d.open(b)
		}},
		{"PostgreSQL", func(b *testing.B) *sqlhistory.History { return onPostgres(b, startPostgres(b)).open(b) }},
	}
	for _, d := range databases {
		for _, channels := range []int{1, publishers} {
			b.Run(fmt.Sprintf("%s/channels=%d", d.name, channels), func(b *testing.B) {
				h := d.open(b)
				appendTo(b, h, "warm", "up")
				var next atomic.Int64
				b.SetParallelism(publishers / min(publishers, runtime.GOMAXPROCS(0)))
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					channel := fmt.Sprint("c", next.Add(1)%int64(channels))
					for pb.Next() {
						if _, err := h.Append(b.Context(), message(channel, content)); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

// BenchmarkPgbench has pgbench do the like on a server of the same kind: 64 clients,
// each message a transaction of its own.
func BenchmarkPgbench(b *testing.B) {
	scripts := []struct{ name, script string }{
		// What gives a position and stores: the same tables, 64 channels.
		{"counted", `\set c random(1, 64)
			WITH c AS (
				INSERT INTO chat_channels AS c (name, epoch, last, oldest) VALUES ('c' || :c, 'e', 1, 0)
				ON CONFLICT (name) DO UPDATE SET last = c.last + 1 RETURNING id, last
			) INSERT INTO chat_messages (channel, seq, ms, sender, content) SELECT id, last, 0, 'ana', '` + content + `' FROM c;
		`},
		// What only inserts, numbered by a sequence.
		{"inserted", `INSERT INTO chat_messages (channel, seq, ms, sender, content) VALUES (0, nextval('numbers'), 0, 'ana', '` + content + `');
		`},
	}
	for _, s := range scripts {
		b.Run(s.name, func(b *testing.B) {
			server := startPostgres(b)
			d := onPostgres(b, server)
			d.open(b)
			d.exec(b, "CREATE SEQUENCE numbers CACHE 100")
			cmd := server.Command("pgbench", "-n", "-M", "prepared", "-c", strconv.Itoa(publishers), "-j", "2",
				"-t", strconv.Itoa(max(1, b.N/publishers)), "-f", "-", d.dsn)
			cmd.Stdin = strings.NewReader(s.script)
			b.ResetTimer()
			out, err := cmd.CombinedOutput()
			if err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			tps := regexp.MustCompile(`tps = ([0-9.]+)`).FindSubmatch(out)
			if tps == nil {
				b.Fatalf("pgbench says:\n%s", out)
			}
			perSecond, _ := strconv.ParseFloat(string(tps[1]), 64)
			b.ReportMetric(perSecond, "messages/s")
		})
	}
}
