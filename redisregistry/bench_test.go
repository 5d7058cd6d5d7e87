package redisregistry_test

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// content is what a notification has to say, more or less.
var content = strings.Repeat("a hundred bytes, or about as many ", 4)

// BenchmarkPublish measures 64 publishers on one node: the time, the CPU time of Redis and its
// commands, per message. Another node has a socket in each channel.
func BenchmarkPublish(b *testing.B) {
	for _, channels := range []int{1, 100} {
		b.Run(fmt.Sprint("channels=", channels), func(b *testing.B) {
			s := redistest.Start(b, "--appendonly", "no")
			from, to := start(b, clientOf(s)), start(b, clientOf(s))
			var names []string
			for i := range channels {
				names = append(names, fmt.Sprint("news", i))
			}
			r := discard{newReceiver("ana", chat.RoleUser)}
			if _, err := to.Add(b.Context(), r, 0); err != nil {
				b.Fatal(err)
			}
			for _, name := range names {
				if _, err := to.Join(b.Context(), r, name); err != nil {
					b.Fatal(err)
				}
			}
			cost := costOf(b, s)
			b.ReportAllocs()
			b.ResetTimer()
			const publishers = 64
			var all sync.WaitGroup
			for i := range publishers {
				all.Go(func() {
					for m := i; m < b.N; m += publishers {
						if _, err := from.try(names[m%channels], content); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			cost.report(b)
		})
	}
}

// BenchmarkOneAtATime measures the time from publishing on one node to a socket on the other.
func BenchmarkOneAtATime(b *testing.B) {
	s := redistest.Start(b, "--appendonly", "no")
	from, to := start(b, clientOf(s)), start(b, clientOf(s))
	ana := &waiter{receiver: newReceiver("ana", chat.RoleUser), got: make(chan uint64, 1)}
	if _, err := to.Add(b.Context(), ana, 0); err != nil {
		b.Fatal(err)
	}
	if _, err := to.Join(b.Context(), ana, "news"); err != nil {
		b.Fatal(err)
	}
	cost := costOf(b, s)
	b.ReportAllocs()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		m, err := from.try("news", content)
		if err != nil {
			b.Fatal(err)
		}
		if got := <-ana.got; got != m.Position.Seq {
			b.Fatalf("position %d was delivered, want %d", got, m.Position.Seq)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	cost.report(b)
}

// waiter is a socket that passes on the position of each message.
type waiter struct {
	*receiver
	got chan uint64
}

func (w *waiter) Deliver(e chat.Event) { w.got <- e.Message.Position.Seq }

// discard is a socket that drops its messages.
type discard struct{ *receiver }

func (discard) Deliver(chat.Event) {}

// cost is what Redis has done until the benchmark began.
type cost struct {
	client   *redis.Client
	cpu      float64 // seconds
	commands float64
}

func costOf(t testing.TB, s *redistest.Server) cost {
	t.Helper()
	c := cost{client: s.Client()}
	t.Cleanup(func() { c.client.Close() })
	c.cpu, c.commands = c.now(t)
	return c
}

// now reads the CPU time of Redis, in seconds, and how many commands it has run, those of
// scripts included.
func (c cost) now(t testing.TB) (cpu, commands float64) {
	t.Helper()
	for _, section := range []string{"cpu", "commandstats"} {
		info, err := c.client.Info(context.Background(), section).Result()
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(strings.NewReader(info)); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ":")
			var n float64
			switch {
			case name == "used_cpu_user", name == "used_cpu_sys":
				_, _ = fmt.Sscan(value, &n)
				cpu += n
			case strings.HasPrefix(name, "cmdstat_"):
				_, _ = fmt.Sscanf(value, "calls=%g", &n)
				commands += n
			}
		}
	}
	return cpu, commands
}

// report reports the CPU time of Redis and its commands per message.
func (c cost) report(b *testing.B) {
	cpu, commands := c.now(b)
	b.ReportMetric((cpu-c.cpu)*1e6/float64(b.N), "redis-µs/op")
	b.ReportMetric((commands-c.commands)/float64(b.N), "commands/op")
}
