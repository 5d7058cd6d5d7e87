package redisregistry

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/reto10/chat"
)

// member is a socket of this node.
type member struct {
	socket   chat.Socket
	user     string
	channels []string // joined or being joined

	// The reporter's mu guards the following. All but closing are set when Redis has the
	// socket.
	reportedAt  int64  // when Redis got the socket: its clock, Unix, in µs; 0: not yet
	newestOrder *mark  // the newest order at that time
	rank        int    // position among the user's sockets on this node, from 1
	otherNodes  string // other nodes with sockets of the user at that time, as in outcome
	closing     bool   // an order closes it
}

// awaitReport waits until Redis has m's presence. It returns how many sockets the user had on
// all nodes when m was added, m included.
func (r *Registry) awaitReport(ctx context.Context, reported <-chan receipt, m *member) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.timeout)
	defer cancel()
	select {
	case rec := <-reported:
		// total counts all sockets of this report: subtract those added after m.
		return rec.total - (len(rec.members) - 1 - slices.Index(rec.members, m)), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for Redis to accept the report: %w", ctx.Err())
	}
}

// countConnected returns how many sockets m's user had when m was added, m included. It does
// not count sockets on nodes that do not answer now.
func (r *Registry) countConnected(ctx context.Context, m *member) (int, error) {
	count, others := r.reporter.countAtAdd(m)
	alive, err := r.answers.ask(ctx, slices.Collect(maps.Keys(others)))
	if err != nil {
		return 0, fmt.Errorf("counting a user's sockets: %w", err)
	}
	for node, n := range others {
		if alive[node] {
			count += n
		}
	}
	return count, nil
}

// joinChannel subscribes to the channel's topic before it reads the last position, so that no
// message is missed in between.
func (r *Registry) joinChannel(ctx context.Context, m *member, channel string) (chat.Position, error) {
	live := r.subs.acquire(r.store.keys.topic(channel), &channel)
	var reported <-chan receipt
	if listed(channel) {
		reported = r.reporter.add(channel, m)
	}
	if err := r.ready(); err != nil {
		return chat.Position{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, r.cfg.timeout)
	defer cancel()
	select {
	case <-live:
	case <-waiting.Done():
		return chat.Position{}, fmt.Errorf("waiting for a subscription: %w", waiting.Err())
	}
	if reported != nil {
		if _, err := r.awaitReport(waiting, reported, m); err != nil {
			return chat.Position{}, err
		}
	}
	return r.memory.Join(ctx, m.socket, channel)
}

// leaveChannel undoes what joinChannel did in Redis.
func (r *Registry) leaveChannel(m *member, channel string) {
	if listed(channel) {
		r.reporter.remove(channel, m)
	}
	r.subs.release(r.store.keys.topic(channel))
}

// listed reports whether Redis has a list of the channel's users. Everyone's channel and user
// channels have none: their users are in the list of connected users.
func listed(channel string) bool { return channel != "" && !strings.HasPrefix(channel, "@") }

// wasConnected reports whether m was connected when the order was given. An order of another
// era may come from a backup that was restored: then the times decide, both of Redis' clock.
func (m *member) wasConnected(o order) bool {
	if m.newestOrder == nil || !m.newestOrder.before(o) {
		return false
	}
	ms, _, _ := strings.Cut(o.at.id, "-")
	given, _ := strconv.ParseInt(ms, 10, 64)
	return m.newestOrder.era == o.at.era || m.reportedAt/1000 <= given
}

// connectOrder is larger for a newer socket. A socket that Redis does not have yet is the
// newest. It requires the reporter's mu.
func (m *member) connectOrder() int64 {
	if m.reportedAt == 0 {
		return math.MaxInt64
	}
	return m.reportedAt
}
