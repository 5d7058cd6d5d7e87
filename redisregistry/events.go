package redisregistry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// eventsAtOnce is how many joins and leaves are read at once.
const eventsAtOnce = 500

// eventLog is how far this node has read the joins and leaves.
type eventLog struct {
	position string          // id of the last event that was read; "": unknown
	number   uint64          // number of that event
	align    chan chan error // a request of alignEvents
	// dropped counts the events that Redis dropped before this node read them: it keeps
	// the last 20,000, and more happened while the node was disconnected.
	dropped atomic.Uint64
}

// alignEvents has announceEvents find the end of the log, if its position is unknown or if
// Redis came back with less than this node has read.
func (r *Registry) alignEvents(ctx context.Context) error {
	found := make(chan error, 1)
	select {
	case r.eventLog.align <- found:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-found:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// announceEvents calls changed once for each join and leave, in order, until ctx ends. Pub/sub
// only signals that there are new ones.
func (r *Registry) announceEvents(ctx context.Context) {
	tick := time.NewTicker(r.cfg.lease / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case found := <-r.eventLog.align:
			found <- r.findEvents(ctx)
			continue
		case <-r.eventSignal:
		case <-tick.C:
		}
		for more := r.ready() == nil && r.eventLog.position != ""; more; {
			n, err := r.readEvents(ctx)
			more = err == nil && n == eventsAtOnce
		}
	}
}

// findEvents does the work of alignEvents.
func (r *Registry) findEvents(ctx context.Context) error {
	newest, err := bounded(ctx, r.store, func(ctx context.Context) ([]redis.XMessage, error) {
		return r.client.XRevRangeN(ctx, r.store.keys.events(), "+", "-", 1).Result()
	})
	if err != nil {
		return fmt.Errorf("looking for the newest event: %w", err)
	}
	end, number := "0-0", uint64(0)
	if len(newest) > 0 {
		end, number = newest[0].ID, numberOf(newest[0])
	}
	// Ids come from Redis' clock, so a log that lost its events continues with later ids.
	if r.eventLog.position == "" || len(newest) > 0 && before(end, r.eventLog.position) {
		r.eventLog.position, r.eventLog.number = end, number
	}
	signal(r.eventSignal)
	return nil
}

// before compares the ids of two entries of a stream.
func before(a, b string) bool {
	parse := func(id string) (ms, n uint64) {
		left, right, _ := strings.Cut(id, "-")
		ms, _ = strconv.ParseUint(left, 10, 64)
		n, _ = strconv.ParseUint(right, 10, 64)
		return ms, n
	}
	ams, an := parse(a)
	bms, bn := parse(b)
	return ams < bms || ams == bms && an < bn
}

// readEvents announces up to eventsAtOnce joins and leaves and returns how many it read.
func (r *Registry) readEvents(ctx context.Context) (int, error) {
	found, err := bounded(ctx, r.store, func(ctx context.Context) ([]redis.XMessage, error) {
		streams, err := r.client.XRead(ctx, &redis.XReadArgs{
			Streams: []string{r.store.keys.events(), r.eventLog.position}, Count: eventsAtOnce, Block: -1, // do not wait
		}).Result()
		if errors.Is(err, redis.Nil) || err == nil && len(streams) == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return streams[0].Messages, nil
	})
	if err != nil {
		if ctx.Err() == nil { // otherwise the registry shuts down
			r.cfg.logger.Warn("reading joins and leaves from Redis failed", "error", err)
		}
		return 0, err
	}
	changed := r.changed.Load()
	for _, e := range found {
		n := numberOf(e)
		// A Redis that lost data counts from an earlier number: then nothing is counted.
		if n > r.eventLog.number+1 {
			dropped := n - r.eventLog.number - 1
			r.eventLog.dropped.Add(dropped)
			r.cfg.logger.Warn("this node missed joins and leaves: Redis dropped them while the node was disconnected", "count", dropped)
		}
		r.eventLog.position, r.eventLog.number = e.ID, n
		if changed == nil {
			continue
		}
		field := func(name string) string { s, _ := e.Values[name].(string); return s }
		size, _ := strconv.Atoi(field("s"))
		joinSize, _ := strconv.Atoi(field("z"))
		(*changed)(chat.PresenceChange{
			Channel: field("c"), User: chat.User{Name: field("u"), Role: field("r")},
			Joined: field("j") == "1", Size: size, JoinSize: joinSize,
		})
	}
	return len(found), nil
}

// numberOf returns an event's number. Events are numbered from 1.
func numberOf(e redis.XMessage) uint64 {
	text, _ := e.Values["n"].(string)
	n, _ := strconv.ParseUint(text, 10, 64) // 0 if it has none
	return n
}
