package redisregistry

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/reto10/chat"
)

// maxUntold bounds the channels that are remembered because the other nodes were
// not told of a message there. In those beyond it they find it within rounds.
const maxUnpublished = 10_000

// untold are the channels with a message that was stored, or may have been, and that
// could not be published. Which one it is does not matter: whoever hears of the
// newest reads what is before it.
type unpublished struct {
	wake chan struct{} // has something when there may be channels, and Redis

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

// take empties it.
func (u *unpublished) take() map[string]struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.channels
	u.channels = make(map[string]struct{})
	return taken
}

// makeUpFor publishes the newest message of each channel where one could not be
// published, as soon as that is possible.
func (r *Registry) publishMissed(ctx context.Context) {
	pause := retryAtFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.unpublished.wake:
		}
		if r.ready() != nil {
			continue // it is signalled when Redis is back
		}
		failed := false
		for channel := range r.unpublished.take() {
			if err := r.publishNewest(ctx, channel); err != nil {
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

// publishNewest publishes the newest message of a channel, if it is kept.
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
		return nil // nobody can have it any more
	}
	if err != nil {
		return err
	}
	return r.publishStored(ctx, msgs[0])
}
