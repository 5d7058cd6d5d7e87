package redisregistry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

const (
	// retryAtFirst and retryAtLast are how long it takes to try again after Redis
	// was lost.
	retryAtFirst = 50 * time.Millisecond
	retryAtLast  = time.Second
	// startTimeouts is how many timeouts a listener has to get going.
	startTimeouts = 5
	// rounds is how often it is looked whether messages of a channel were lost
	// unnoticed, and round how often at some of the channels.
	rounds = time.Minute
	round  = time.Second
	// lookups are how many channels are looked at at the same time.
	lookups = 8
)

// keepConnected has a listener whenever Redis allows one.
func (r *Registry) keepConnected(ctx context.Context) {
	pause := retryAtFirst
	for {
		err := r.stayConnected(ctx)
		if ctx.Err() != nil {
			return
		}
		if cluster, ok := r.client.(*redis.ClusterClient); ok {
			cluster.ReloadState(ctx) // it may know by now what has moved
		}
		r.down.Store(&outage{err})
		if r.connected.Swap(false) {
			pause = retryAtFirst
			r.cfg.logger.Warn("Redis is lost", "error", err)
		}
		r.tryIdle(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, retryAtLast)
		}
	}
}

// tryIdle uses each idle connection of the client once, all at the same time: when
// the host at their end is gone without a word, each costs a timeout, and there are
// many.
func (r *Registry) tryIdle(ctx context.Context) {
	try := func(ctx context.Context, client redis.UniversalClient) {
		var trying sync.WaitGroup
		for range client.PoolStats().IdleConns {
			trying.Go(func() { _ = client.Ping(ctx).Err() }) // the client drops what fails
		}
		trying.Wait()
	}
	_, _ = bounded(ctx, r.server, func(ctx context.Context) (none struct{}, err error) {
		cluster, ok := r.client.(*redis.ClusterClient)
		if !ok {
			try(ctx, r.client)
			return none, nil
		}
		return none, cluster.ForEachShard(ctx, func(ctx context.Context, client *redis.Client) error {
			try(ctx, client)
			return nil
		})
	})
}

// stayConnected returns when Redis could not be reached, or no longer can.
func (r *Registry) stayConnected(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if err := r.findSharding(ctx); err != nil {
		return err
	}
	l, err := r.newListener(ctx, fail)
	if err != nil {
		return err
	}
	l.run(ctx)
	r.subs.use(l)
	defer r.subs.use(nil)
	if err := r.start(ctx, l); err != nil {
		return err
	}
	r.since.Store(int64(uptime()))
	r.connected.Store(true)
	r.cfg.logger.Info("Redis is connected", "sharded", l.sharded)
	signal(r.behind) // of what was published meanwhile
	signal(r.ordered)
	signal(r.untold.some)

	interval := r.cfg.timeout / 2
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if err := r.probe(ctx, l); err != nil {
			return err
		}
		for _, k := range l.links {
			// When much comes a probe waits behind it. Anything shows life.
			if quiet := time.Since(time.Unix(0, k.heard.Load())); quiet > interval+r.cfg.timeout {
				return fmt.Errorf("nothing came by pub/sub for %v", quiet.Truncate(time.Millisecond))
			}
		}
		switch moved, err := l.moved(ctx); {
		case err != nil:
			return err
		case moved:
			return errRemapped
		}
	}
}

// start brings a new listener to where messages get through and nothing is missed.
func (r *Registry) start(ctx context.Context, l *listener) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeouts*r.cfg.timeout, errors.New("no answer to subscriptions"))
	defer cancel()
	if err := r.checkEviction(ctx); err != nil {
		return err
	}
	if err := r.subs.wait(ctx); err != nil {
		return err
	}
	for _, k := range l.links {
		if err := r.awaitProbe(ctx, l, k); err != nil {
			return err
		}
	}
	if _, err := bounded(ctx, r.server, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, r.server.checkIn(ctx, time.Now())
	}); err != nil {
		return err
	}
	if err := r.alignEvents(ctx); err != nil {
		return err
	}
	select {
	case <-r.ledger.recheck():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("telling Redis who is here: %w", context.Cause(ctx))
	}
}

// awaitProbe publishes probes until one has come by k.
func (r *Registry) awaitProbe(ctx context.Context, l *listener, k *link) error {
	again := time.NewTicker(r.cfg.timeout / 20)
	defer again.Stop()
	for {
		if err := r.probe(ctx, l); err != nil {
			return err
		}
		select {
		case <-k.echoed:
			return nil
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for a probe: %w", context.Cause(ctx))
		}
	}
}

// probe publishes what has to come by each link.
func (r *Registry) probe(ctx context.Context, l *listener) error {
	for _, k := range l.links {
		if err := r.publish(ctx, k.client, k.probe, ""); err != nil {
			return fmt.Errorf("publishing a probe: %w", err)
		}
	}
	return nil
}

// findSharding finds out whether Redis has sharded pub/sub, which makes sense in a
// cluster alone.
func (r *Registry) findSharding(ctx context.Context) error {
	cluster, ok := r.client.(*redis.ClusterClient)
	if !ok {
		return nil
	}
	_, err := bounded(ctx, r.server, func(ctx context.Context) (int64, error) {
		return cluster.SPublish(ctx, r.server.keys.probeTopic(presenceTag, r.node), "").Result()
	})
	if err != nil && !strings.Contains(strings.ToLower(err.Error()), "unknown command") {
		return fmt.Errorf("looking for sharded pub/sub: %w", err)
	}
	r.sharded.Store(err == nil)
	return nil
}

// catchUp looks for messages that were missed: in all channels when Redis is back,
// and now and then in each, because pub/sub loses without a word. It has the newest
// one delivered, in front of which the registry in memory notices the gap.
func (r *Registry) catchUp(ctx context.Context) {
	tick := time.NewTicker(round)
	defer tick.Stop()
	late := make(map[string]chat.Place)  // to be looked at now
	later := make(map[string]chat.Place) // in this round
	atOnce := 0                          // of these
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.behind:
			late = r.subs.channels()
		case <-tick.C:
			if r.ready() != nil {
				continue
			}
			if len(later) == 0 {
				later = r.subs.channels()
				atOnce = len(later)*int(round)/int(rounds) + 1
			}
			for n := atOnce; n > 0 && len(later) > 0; n-- {
				for channel, newest := range later {
					late[channel] = newest
					delete(later, channel)
					break
				}
			}
		}
		late = r.lookAt(ctx, late)
	}
}

// lookAt looks at channels and returns those where it failed.
func (r *Registry) lookAt(ctx context.Context, channels map[string]chat.Place) map[string]chat.Place {
	type lookup struct {
		channel string
		newest  chat.Place
		err     error
	}
	ask, answers := make(chan lookup), make(chan lookup)
	for range min(lookups, len(channels)) {
		r.running.Go(func() {
			for l := range ask {
				l.err = r.look(ctx, l.channel, l.newest)
				answers <- l
			}
		})
	}
	go func() {
		defer close(ask)
		for channel, newest := range channels {
			ask <- lookup{channel, newest, nil}
		}
	}()
	failed := make(map[string]chat.Place)
	for range len(channels) {
		if l := <-answers; l.err != nil {
			failed[l.channel] = l.newest
		}
	}
	return failed
}

func (r *Registry) look(ctx context.Context, channel string, newest chat.Place) error {
	if err := r.ready(); err != nil {
		return err
	}
	m, err := r.newest(ctx, channel, newest)
	if err != nil || m.Place == (chat.Place{}) {
		return err
	}
	return r.deliver(ctx, m)
}

// newest reads the newest message of a channel; it is none, without a place, when
// there is none, or when that is known.
func (r *Registry) newest(ctx context.Context, channel string, known chat.Place) (chat.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.timeout)
	defer cancel()
	h := *r.history.Load()
	last, err := h.Last(ctx, channel)
	if err != nil || last.Seq == 0 || last == known {
		return chat.Message{}, err
	}
	msgs, err := h.After(ctx, channel, chat.Place{Epoch: last.Epoch, Seq: last.Seq - 1}, 1)
	if errors.Is(err, chat.ErrGone) {
		return chat.Message{}, nil // nobody can have it any more
	}
	if err != nil || len(msgs) == 0 {
		return chat.Message{}, err
	}
	return msgs[0], nil
}
