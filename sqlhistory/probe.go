package sqlhistory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/reto10/chat/sqlhistory/internal/database"
)

const (
	// probeEvery is the time between two writes by Check, at least.
	probeEvery = 10 * time.Second
	// probeAgain is the same after a failed write.
	probeAgain = time.Second
)

// probe remembers whether Check could write.
type probe struct {
	flight flight

	mu     sync.Mutex // guards the fields below
	err    error      // of the last write
	ended  time.Time  // when the last write ended, zero for never
	doubt  bool       // a message could not be stored since
	warned bool       // the warning that the role may not write was logged
}

// failed makes the next Check write soon. A message could not be stored.
func (p *probe) failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubt = true
}

// last returns the result of the last write, and whether it is recent enough.
func (p *probe) last() (err error, fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := probeEvery
	if p.err != nil || p.doubt {
		every = probeAgain
	}
	return p.err, !p.ended.IsZero() && time.Since(p.ended) < every
}

// Check returns an error if the database does not answer or cannot store messages. To detect
// a full disk it writes a row to chat_room and commits, at most every 10 seconds, or every
// second after a failure. If the role may not write to chat_room, Check leaves that out and
// logs one warning.
func (h *History) Check(ctx context.Context) error {
	if _, err := h.epoch(ctx); err != nil {
		return err
	}
	if err := h.dialect.writable(ctx, h.db); err != nil {
		h.suspect(err)
		return fmt.Errorf("sqlhistory: looking whether it can be written to: %w", explain(err))
	}
	if err := h.room(ctx); err != nil {
		return fmt.Errorf("sqlhistory: looking whether there is room: %w", explain(err))
	}
	return nil
}

// room returns the error of the last write, or writes again if that is too long ago.
func (h *History) room(ctx context.Context) error {
	p := &h.probe
	if err, fresh := p.last(); fresh {
		return err
	}
	return p.flight.share(ctx, h.start, func() error {
		err := h.tryRoom()
		p.mu.Lock()
		defer p.mu.Unlock()
		if database.SQLState(err) == "42501" { // insufficient_privilege
			if !p.warned {
				h.cfg.logger.Warn("cannot tell whether the database has room: grant SELECT, INSERT, UPDATE, DELETE on chat_room to the role", "error", err)
			}
			p.warned, err = true, nil
		}
		p.err, p.ended, p.doubt = err, time.Now(), false
		return err
	})
}

// tryRoom writes a row. On SQLite the writer's goroutine does it, between two batches: two
// transactions would lock each other out.
func (h *History) tryRoom() (err error) {
	write := func() {
		ctx, cancel := context.WithTimeout(h.life, h.cfg.timeout)
		defer cancel()
		err = h.dialect.room(ctx, h.db)
	}
	if _, remote := h.dialect.(*postgres); remote {
		write()
		return err
	}
	err = ErrClosed // if the writer is closed
	h.writer.do(write)
	return err
}
