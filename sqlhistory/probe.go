package sqlhistory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/reto10/chat/sqlhistory/internal/database"
)

const (
	// probeEvery is how often Check writes at the most.
	probeEvery = 10 * time.Second
	// probeAgain is the same after something could not be written or stored.
	probeAgain = time.Second
)

// probe is whether something could be written lately.
type probe struct {
	flight flight

	mu     sync.Mutex // guards what follows
	err    error      // of the last time
	ended  time.Time  // when that was, zero for never
	doubt  bool       // a message could not be stored since
	warned bool       // that the role may not write, which is logged once
}

// failed has the next Check look soon, because a message could not be stored.
func (p *probe) failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubt = true
}

// last is what the last time told, and whether that is still to be believed.
func (p *probe) last() (err error, fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := probeEvery
	if p.err != nil || p.doubt {
		every = probeAgain
	}
	return p.err, !p.ended.IsZero() && time.Since(p.ended) < every
}

// Check reports whether the database answers, and whether messages can be stored: every
// 10 seconds at the most, or every second after a failure, it writes something and
// commits it, since a disk that is full is noticed by nothing less. A role that may not
// write to chat_room cannot tell; a warning says so once.
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

// room reports what kept something from being written the last time, or tries again.
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

// tryRoom writes something. In SQLite that has its turn with who stores: they would be
// in the way of each other.
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
	err = ErrClosed // if it has no turn
	h.writer.do(write)
	return err
}
