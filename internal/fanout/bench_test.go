package fanout_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/reto10/chat/internal/fanout"
)

// Each message is for one of many users, as most notifications are. The publisher does not
// wait for deliveries, except at the end.
func BenchmarkOneMemberPerGroup(b *testing.B) {
	for _, shards := range []int{1, 64} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			h := fanout.NewHub(shards)
			receivers := make([]count, 2000)
			groups := make([]fanout.Group, len(receivers))
			for i := range receivers {
				add(h, &receivers[i]).Join(&groups[i])
			}
			flush(b, h)
			f := fanout.Frame{Bytes: make([]byte, 192)}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				g := &groups[n%len(groups)]
				_ = g.Wait(b.Context())
				g.Publish(f)
			}
			flush(b, h)
		})
	}
}

func BenchmarkDispatch(b *testing.B) {
	for _, receivers := range []int{1, 100, 10_000} {
		for _, burst := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("receivers=%d/burst=%d", receivers, burst), func(b *testing.B) {
				h, g := hubOf(receivers)
				f := fanout.Frame{Bytes: binary.BigEndian.AppendUint64(make([]byte, 192), 0)}
				b.ReportAllocs()
				for b.Loop() {
					for range burst {
						g.Publish(f)
					}
					flush(b, h)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(h.Deliveries()), "ns/delivery")
			})
		}
	}
}
