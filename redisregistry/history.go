package redisregistry

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// maxChannels is how many channels a bucket has before it begins a new era. It bounds what
// Redis stores of channels that have no messages any more.
const maxChannels = 500_000

// History is a [chat.History] in a Registry's Redis. Its methods are safe for concurrent use.
//
// Append also publishes the messages to the other nodes, because one script stores and
// publishes them. [Registry.Publish] then delivers them on this node only.
//
// Messages are as durable as the settings of Redis make them. After a restart of Redis, or a
// failover to a replica, all channels begin a new epoch, even if no message is missing.
// [WithDurableRedis] prevents that.
type History struct {
	registry *Registry
	calls    atomic.Uint64
	lives    *lives
	batchers []batchers // one; in a Cluster one for each bucket
	writers  []*writer  // one for each of batchers
}

// batchers has one batcher for each script that reads.
type batchers struct{ after, last batcher }

// ownIdentity is the name of History.
const ownIdentity = "redis"

// Identity implements [chat.SharedHistory].
func (h *History) Identity(context.Context) (string, error) { return ownIdentity, nil }

func newHistory(r *Registry) *History {
	h := &History{registry: r, lives: newLives(r.cfg.age), batchers: make([]batchers, 1)}
	if _, cluster := r.client.(*redis.ClusterClient); cluster {
		h.batchers = make([]batchers, buckets) // so that no master waits for another
	}
	for i := range h.batchers {
		b := &h.batchers[i]
		b.after = batcher{store: r.store, script: afterScript, maxBatch: maxReadCalls}
		b.last = batcher{store: r.store, script: lastScript, maxBatch: maxCalls}
		h.writers = append(h.writers, &writer{
			timeout: r.cfg.timeout, store: h.storeBatch,
			failed: func(m *chat.Message) { r.unpublished.add(m.Channel) },
		})
	}
	return h
}

// of returns the batchers of a channel.
func (h *History) of(channel string) *batchers { return &h.batchers[bucketOf(channel)%len(h.batchers)] }

// durable is an argument of every script, see era.lua.
func (h *History) durable() string {
	if h.registry.cfg.durable {
		return "1"
	}
	return ""
}

// common returns the first arguments of the scripts that read.
func (h *History) common(channel string) []any {
	return []any{newEra(), h.durable(), positionField(channel)}
}

// After implements [chat.History].
func (h *History) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	r := h.registry
	k := r.store.keys
	reply, err := h.of(channel).after.run(ctx, []string{k.positions(channel), k.stream(channel)},
		append(h.common(channel), r.cfg.age.Milliseconds(), r.cfg.count, p.Epoch, strconv.FormatUint(p.Seq, 10), max(limit.Count, 1), max(limit.Bytes, 0))...)
	var found []string
	if err == nil {
		found, err = texts(reply)
	}
	if err == nil && len(found) < 2 {
		err = fmt.Errorf("the script returned %q, want an era and a flag", found)
	}
	if err != nil {
		return nil, fmt.Errorf("redisregistry: reading the history: %w", err)
	}
	era, gone, found := found[0], found[1] != "", found[2:]
	msgs := make([]chat.Message, 0, len(found)/2)
	for i := 0; i+1 < len(found) && len(msgs) < limit.Count; i += 2 {
		m, err := decode(channel, era, found[i], found[i+1])
		if err != nil {
			return nil, fmt.Errorf("redisregistry: reading the history: %w", err)
		}
		msgs = append(msgs, m)
	}
	if gone {
		return msgs, fmt.Errorf("redisregistry: after %s: %w", chat.FormatID(channel, p), chat.ErrGone)
	}
	return msgs, nil
}

// Last implements [chat.History].
func (h *History) Last(ctx context.Context, channel string) (chat.Position, error) {
	reply, err := h.of(channel).last.run(ctx, []string{h.registry.store.keys.positions(channel)}, h.common(channel)...)
	var p chat.Position
	if err == nil {
		p, err = positionOf(reply)
	}
	if err != nil {
		return chat.Position{}, fmt.Errorf("redisregistry: reading a channel's last position: %w", err)
	}
	return p, nil
}

// begin records in every bucket which run of Redis serves it. A bucket that another run served
// before begins a new era. Without begin, a bucket that no node used meanwhile would not show
// that another run has served it, when a former master becomes master again.
func (h *History) begin(ctx context.Context) error {
	s := h.registry.store
	_, err := bounded(ctx, s, func(ctx context.Context) ([]redis.Cmder, error) {
		return s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for bucket := range buckets {
				pipe.Eval(ctx, lastScript.text, []string{s.keys.positionsOf(strconv.Itoa(bucket))}, h.common("")...)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("asking which run of Redis this is (INFO): %w", err)
	}
	return nil
}

// positionOf parses "era seq", which scripts return.
func positionOf(reply any) (chat.Position, error) {
	text, _ := reply.(string)
	era, seq, ok := strings.Cut(text, " ")
	if !ok {
		return chat.Position{}, fmt.Errorf("the script returned %.80q, want a position", fmt.Sprint(reply))
	}
	return parsePosition(era, seq)
}

func parsePosition(era, seq string) (chat.Position, error) {
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return chat.Position{}, fmt.Errorf("parsing a position: %w", err)
	}
	return chat.Position{Epoch: era, Seq: n}, nil
}

func decode(channel, era, seq, text string) (chat.Message, error) {
	p, err := parsePosition(era, seq)
	if err != nil {
		return chat.Message{}, err
	}
	m, _, err := cutBody(channel, p, text)
	return m, err
}

// texts converts what a script returned to a list of strings.
func texts(reply any) ([]string, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("the script returned a %T, want a list", reply)
	}
	found := make([]string, len(list))
	for i, v := range list {
		if found[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("the script returned a %T in a list, want text", v)
		}
	}
	return found, nil
}
