package sqlhistory

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// probeEvery is how often Check writes at the most.
const probeEvery = time.Second

// probe is whether something could be written lately.
type probe struct {
	flight flight

	mu    sync.Mutex // guards what follows
	err   error      // of the last time
	ended time.Time  // when that was, zero for never
}

// Check reports whether the database answers, and whether messages can be stored: once
// a second at the most it writes something and commits it, since a disk that is full
// is noticed by nothing less.
func (h *History) Check(ctx context.Context) error {
	if _, err := h.epoch(ctx); err != nil {
		return err
	}
	if err := h.dialect.writable(ctx, h.db); err != nil {
		h.suspect(err)
		return fmt.Errorf("sqlhistory: looking whether it can be written to: %w", err)
	}
	if err := h.room(ctx); err != nil {
		return fmt.Errorf("sqlhistory: looking whether there is room: %w", err)
	}
	return nil
}

// room reports what kept something from being written, within the last second.
func (h *History) room(ctx context.Context) error {
	p := &h.probe
	p.mu.Lock()
	err, fresh := p.err, !p.ended.IsZero() && time.Since(p.ended) < probeEvery
	p.mu.Unlock()
	if fresh {
		return err
	}
	return p.flight.share(ctx, h.start, func() error {
		err := ErrClosed
		h.writer.do(func() { // in turn with who stores, who would be in the way of each other in SQLite
			ctx, cancel := context.WithTimeout(context.Background(), h.cfg.timeout)
			defer cancel()
			err = h.dialect.room(ctx, h.db)
		})
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err, p.ended = err, time.Now()
		return err
	})
}
