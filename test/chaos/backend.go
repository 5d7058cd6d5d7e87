package chaos

import (
	"context"
	"fmt"
	"time"
)

// endWithin bounds the end of a server that was told to stop.
const endWithin = 20 * time.Second

// untilServing polls a server until it answers.
func untilServing(ctx context.Context, p *process, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, p.lastLine())
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve: %w", p.name, err)
		}
	}
}
