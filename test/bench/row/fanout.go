package row

import (
	"context"
	"fmt"
	"time"
)

// fanout measures the CPU of a delivery of single messages and of bursts.
func (l *Lab) fanout(ctx context.Context, kind string, tls bool, sockets int, prefix string) (Values, error) {
	v := Values{}
	err := l.with(ctx, config{kind: kind, tls: tls}, crowd{}, func(t *trial) error {
		if err := t.connect(ctx, sockets); err != nil {
			return err
		}
		for _, burst := range []int{1, 16, 64} {
			_, cost, err := t.perDelivery(ctx, burst, pick(l, 1200*time.Millisecond, 200*time.Millisecond))
			if err != nil {
				return fmt.Errorf("bursts of %d: %w", burst, err)
			}
			v[fmt.Sprintf("%s.%d", prefix, burst)] = cost
		}
		return nil
	})
	return v, err
}

func (l *Lab) fanoutPlain(ctx context.Context, kind string) (Values, error) {
	return l.fanout(ctx, kind, false, 2000, "fanout")
}

func (l *Lab) fanoutTLS(ctx context.Context, kind string) (Values, error) {
	return l.fanout(ctx, kind, true, 1000, "tls")
}

// scaling measures whether the cost of a delivery and a socket grows with their number.
func (l *Lab) scaling(ctx context.Context, kind string) (Values, error) {
	v := Values{}
	err := l.with(ctx, config{kind: kind}, crowd{}, func(t *trial) error {
		for _, n := range pick(l, []int{1000, 2000, 5000, 10000, 15000}, []int{500, 1000, 2000}) {
			if err := t.connect(ctx, n-t.Open()); err != nil {
				return err
			}
			_, cost, err := t.perDelivery(ctx, 1, pick(l, time.Second, 200*time.Millisecond))
			if err != nil {
				return err
			}
			u, err := t.usage(ctx, true)
			if err != nil {
				return err
			}
			v[fmt.Sprintf("scaling.cpu.%d", n)] = cost
			v[fmt.Sprintf("scaling.memory.%d", n)] = kib(u.Resident) / float64(n)
			v["scaling.cpu.growth"] = cost / v[fmt.Sprintf("scaling.cpu.%d", pick(l, 1000, 500))]
		}
		return nil
	})
	return v, err
}
