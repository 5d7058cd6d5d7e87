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
	// retryAtFirst and retryAtLast bound the pause before the next attempt, which doubles
	// from one to the other.
	retryAtFirst = 50 * time.Millisecond
	retryAtLast  = time.Second
	// listenTimeouts is how many timeouts awaitListener may take.
	listenTimeouts = 5
	// checkAllEvery is how often each channel is checked for lost messages.
	checkAllEvery = time.Minute
	// checkSomeEvery is how often a share of the channels is checked.
	checkSomeEvery = time.Second
	// parallelChecks is how many channels are checked at the same time: as many calls as
	// one batch takes.
	parallelChecks = maxCalls
)

// keepConnected reconnects to Redis until ctx ends.
func (r *Registry) keepConnected(ctx context.Context) {
	pause := retryAtFirst
	for {
		err := r.stayConnected(ctx)
		if ctx.Err() != nil {
			return
		}
		if cluster, ok := r.client.(*redis.ClusterClient); ok {
			cluster.ReloadState(ctx) // slots may have moved
		}
		r.disconnectedBy.Store(&reason{err})
		if r.connected.Swap(false) {
			pause = retryAtFirst
			r.cfg.logger.Warn("lost the connection to Redis", "error", err)
		}
		r.pingIdle(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, retryAtLast)
		}
	}
}

// pingIdle uses each idle connection of the client once, all at the same time. If the host at
// the other end is gone, each connection costs a timeout, and there are many.
func (r *Registry) pingIdle(ctx context.Context) {
	try := func(ctx context.Context, client redis.UniversalClient) {
		var trying sync.WaitGroup
		for range client.PoolStats().IdleConns {
			trying.Go(func() { _ = client.Ping(ctx).Err() }) // the client drops a connection that fails
		}
		trying.Wait()
	}
	_, _ = bounded(ctx, r.store, func(ctx context.Context) (none struct{}, err error) {
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

// stayConnected connects to Redis. It returns when the connection fails or has failed.
func (r *Registry) stayConnected(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if err := r.ping(ctx); err != nil {
		return err
	}
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
	if err := r.awaitListener(ctx, l); err != nil {
		return err
	}
	r.leaseSince.Store(int64(uptime()))
	r.connected.Store(true)
	r.cfg.logger.Info("connected to Redis", "sharded", l.sharded)
	signal(r.checkAllSignal) // messages may have been published meanwhile
	signal(r.orderSignal)
	signal(r.unpublished.wake)

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
			// Under load a probe waits behind other messages. Any message counts.
			if quiet := uptime() - time.Duration(k.lastReceived.Load()); quiet > interval+r.cfg.timeout {
				return fmt.Errorf("received nothing from pub/sub for %v", quiet.Truncate(time.Millisecond))
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

// ping checks the connection first, because its errors explain most about what is wrong.
func (r *Registry) ping(ctx context.Context) error {
	_, err := bounded(ctx, r.store, func(ctx context.Context) (none struct{}, err error) {
		return none, r.client.Ping(ctx).Err()
	})
	return explainSilence(err, r.client)
}

// awaitListener waits until messages get through to a new listener and none is missed.
func (r *Registry) awaitListener(ctx context.Context, l *listener) error {
	ctx, cancel := context.WithTimeoutCause(ctx, listenTimeouts*r.cfg.timeout, errors.New("no answer to subscriptions and probes"))
	defer cancel()
	if err := r.checkServers(ctx); err != nil {
		return err
	}
	if err := r.subs.awaitAll(ctx); err != nil {
		return err
	}
	for _, k := range l.links {
		if err := r.awaitProbe(ctx, l, k); err != nil {
			return err
		}
	}
	if h := *r.history.Load(); h == chat.History(r.own) {
		if err := r.own.begin(ctx); err != nil {
			return err
		}
	}
	if err := r.alignEvents(ctx); err != nil {
		return err
	}
	return r.awaitRecheck(ctx)
}

// awaitRecheck waits until this node has its lease, and has queued what Redis may lack. If a
// report fails meanwhile, Check returns its error.
func (r *Registry) awaitRecheck(ctx context.Context) error {
	done := r.reporter.recheck()
	for {
		select {
		case <-done:
			return nil
		case <-r.reporter.failedSignal:
			if err := r.reporter.failure(); err != nil {
				r.disconnectedBy.Store(&reason{err})
			}
		case <-ctx.Done():
			if err := r.reporter.failure(); err != nil {
				return err
			}
			return fmt.Errorf("reporting presence: %w", context.Cause(ctx))
		}
	}
}

// awaitProbe publishes probes until k receives one.
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

// probe publishes one message to each link.
func (r *Registry) probe(ctx context.Context, l *listener) error {
	for _, k := range l.links {
		if err := r.publish(ctx, k.client, []string{k.probe}, []string{""}); err != nil {
			return fmt.Errorf("publishing a probe: %w", err)
		}
	}
	return nil
}

// findSharding finds out whether Redis has sharded pub/sub. Only a Cluster needs it.
func (r *Registry) findSharding(ctx context.Context) error {
	cluster, ok := r.client.(*redis.ClusterClient)
	if !ok {
		return nil
	}
	_, err := bounded(ctx, r.store, func(ctx context.Context) (int64, error) {
		return cluster.SPublish(ctx, r.store.keys.probeTopic(presenceTag, r.node), "").Result()
	})
	if err != nil && !strings.Contains(strings.ToLower(err.Error()), "unknown command") {
		return fmt.Errorf("looking for sharded pub/sub: %w", err)
	}
	r.sharded.Store(err == nil)
	return nil
}

// findMissed looks for messages that this node missed, until ctx ends: in all channels after a
// reconnect, and in each channel every checkAllEvery, because pub/sub loses messages without
// an error.
func (r *Registry) findMissed(ctx context.Context) {
	tick := time.NewTicker(checkSomeEvery)
	defer tick.Stop()
	var now, thisRound []string // to be checked at once, and until checkAllEvery has passed
	perTick := 0                // how many of thisRound are checked in a tick
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.checkAllSignal:
			now = r.subs.channels()
		case <-tick.C:
			if r.ready() != nil {
				continue
			}
			if len(thisRound) == 0 {
				thisRound = r.subs.channels()
				perTick = len(thisRound)*int(checkSomeEvery)/int(checkAllEvery) + 1
			}
			n := min(perTick, len(thisRound))
			now, thisRound = append(now, thisRound[:n]...), thisRound[n:]
		}
		now = r.checkChannels(ctx, now)
	}
}

// checkChannels checks channels and returns those for which it failed.
func (r *Registry) checkChannels(ctx context.Context, channels []string) (failed []string) {
	var mu sync.Mutex // guards failed and next
	next := 0
	var checking sync.WaitGroup
	for range min(parallelChecks, len(channels)) {
		checking.Go(func() {
			for {
				mu.Lock()
				if next == len(channels) {
					mu.Unlock()
					return
				}
				channel := channels[next]
				next++
				mu.Unlock()
				if err := r.checkChannel(ctx, channel); err != nil {
					mu.Lock()
					failed = append(failed, channel)
					mu.Unlock()
				}
			}
		})
	}
	checking.Wait()
	return failed
}

// checkChannel reads a channel's last position. The MemoryRegistry reads what its sockets
// missed, or closes them if it is no longer stored.
func (r *Registry) checkChannel(ctx context.Context, channel string) error {
	if err := r.ready(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.timeout)
	defer cancel()
	last, err := (*r.history.Load()).Last(ctx, channel)
	if err == nil {
		r.memory.ReadMissing(channel, last)
	}
	return err
}
