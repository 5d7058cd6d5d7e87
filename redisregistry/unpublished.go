package redisregistry

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/reto10/chat"
)

// maxUnpublished bounds the set. In other channels the nodes find the message within
// checkAllEvery.
const maxUnpublished = 10_000

// unpublished is the set of channels whose last message may be stored but not published.
// publishMissed publishes the newest message of each; other nodes then read those before it.
type unpublished struct {
	wake chan struct{} // gets a value when a channel was added, or Redis is connected

	mu       sync.Mutex // guards channels
	channels map[string]struct{}
}

func newUnpublished() *unpublished {
	return &unpublished{wake: make(chan struct{}, 1), channels: make(map[string]struct{})}
}

func (u *unpublished) add(channel string) {
	u.mu.Lock()
	if len(u.channels) < maxUnpublished {
		u.channels[channel] = struct{}{}
	}
	u.mu.Unlock()
	signal(u.wake)
}

// take returns the set and empties it.
func (u *unpublished) take() map[string]struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.channels
	u.channels = make(map[string]struct{})
	return taken
}

// publishMissed publishes the newest message of each channel in unpublished as soon as Redis
// can be used, until ctx ends.
func (r *Registry) publishMissed(ctx context.Context) {
	pause := retryAtFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.unpublished.wake:
		}
		if r.ready() != nil {
			continue // stayConnected wakes it when Redis is back
		}
		failed := false
		for channel := range r.unpublished.take() {
			if err := r.publishNewest(ctx, channel); err != nil && !errors.Is(err, errNUL) {
				r.unpublished.add(channel)
				failed = true
			}
		}
		if !failed {
			pause = retryAtFirst
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, retryAtLast)
		}
	}
}

// publishNewest publishes the newest message of a channel, if it still exists.
func (r *Registry) publishNewest(ctx context.Context, channel string) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.timeout)
	defer cancel()
	h := *r.history.Load()
	last, err := h.Last(ctx, channel)
	if err != nil || last.Seq == 0 {
		return err
	}
	msgs, err := h.After(ctx, channel, chat.Position{Epoch: last.Epoch, Seq: last.Seq - 1}, chat.Limit{Count: 1})
	if errors.Is(err, chat.ErrGone) || err == nil && len(msgs) == 0 {
		return nil // the message is no longer stored
	}
	if err != nil {
		return err
	}
	return r.publishStored(ctx, msgs[0])
}
