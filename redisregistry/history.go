package redisregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// maxChannels is how many channels a bucket has before it begins a new era. It bounds what
// Redis stores of channels that have no messages any more.
const maxChannels = 100_000

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
	batchers []batchers // one; in a Cluster one for each bucket
}

// batchers has one batcher for each script.
type batchers struct{ publish, after, last batcher }

// ownIdentity is the name of History.
const ownIdentity = "redis"

// Identity implements [chat.SharedHistory].
func (h *History) Identity(context.Context) (string, error) { return ownIdentity, nil }

func newHistory(r *Registry) *History {
	h := &History{registry: r, batchers: make([]batchers, 1)}
	if _, cluster := r.client.(*redis.ClusterClient); cluster {
		h.batchers = make([]batchers, buckets) // so that no master waits for another
	}
	for i := range h.batchers {
		b := &h.batchers[i]
		b.publish = batcher{store: r.store, script: publishScript, maxBatch: maxCalls}
		b.after = batcher{store: r.store, script: afterScript, maxBatch: maxReadCalls}
		b.last = batcher{store: r.store, script: lastScript, maxBatch: maxCalls}
	}
	return h
}

// of returns the batchers of a channel.
func (h *History) of(channel string) *batchers { return &h.batchers[bucketOf(channel)%len(h.batchers)] }

// common returns the first arguments of every script.
func (h *History) common(channel string) []any {
	durable := ""
	if h.registry.cfg.durable {
		durable = "1"
	}
	return []any{newEra(), durable, channel}
}

// body is a message as Redis stores it, without its position and channel.
type body struct {
	Sender  string `json:"s,omitempty"`
	Content string `json:"c"`
	Time    int64  `json:"t"` // Unix time in milliseconds
}

// encode returns the body as JSON, without the escapes that only HTML needs: each would
// take six bytes instead of one.
func (b body) encode() (string, error) {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(b); err != nil {
		return "", err
	}
	return strings.TrimSuffix(text.String(), "\n"), nil
}

// Bounds on what Append sends to Redis at once: other commands wait for a script. The
// message that reaches maxAppendBytes is the last one.
const (
	maxAppendCount = 128
	maxAppendBytes = 1 << 20
)

// Append implements [chat.History], and publishes the messages to the other nodes. One script
// call stores and publishes all messages of a bucket, and the calls for several buckets share a
// pipeline. More than 128 messages, or more than 1 MiB of content, take several round trips.
func (h *History) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	r := h.registry
	if err := r.ready(); err != nil {
		return nil, err
	}
	stored := slices.Clone(msgs)
	for rest := stored; len(rest) > 0; {
		n := 0
		for bytes := 0; n < min(len(rest), maxAppendCount) && bytes < maxAppendBytes; n++ {
			bytes += len(rest[n].Content)
		}
		if err := h.appendOnce(ctx, rest[:n]); err != nil {
			for _, m := range rest[:n] { // the script may have run, or not
				r.unpublished.add(m.Channel)
			}
			return nil, fmt.Errorf("redisregistry: storing messages: %w", err)
		}
		rest = rest[n:]
	}
	return stored, nil
}

// appendOnce stores messages in one round trip and sets their positions.
func (h *History) appendOnce(ctx context.Context, msgs []chat.Message) error {
	var batches []*bucketBatch
	for i := range msgs {
		bucket := bucketOf(msgs[i].Channel)
		at := slices.IndexFunc(batches, func(b *bucketBatch) bool { return b.bucket == bucket })
		if at < 0 {
			at = len(batches)
			batches = append(batches, &bucketBatch{bucket: bucket})
		}
		if err := batches[at].add(&msgs[i]); err != nil {
			return err
		}
	}
	calls := make([]*call, len(batches))
	for i, b := range batches {
		calls[i] = h.publishCall(b)
	}
	if len(calls) == 1 {
		c := calls[0]
		c.reply, c.err = h.of(msgs[0].Channel).publish.run(ctx, c.keys, c.args...)
	} else {
		h.registry.store.evalAll(ctx, publishScript, calls)
	}
	var failed error // the first error: mostly all calls of a pipeline fail alike
	for i, c := range calls {
		err := c.err
		if err == nil {
			err = batches[i].number(c.reply)
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}

// publishCall makes the call of the publish script that stores a batch.
func (h *History) publishCall(b *bucketBatch) *call {
	r, k := h.registry, h.registry.store.keys
	first := b.channels[0].name
	name := r.node + "-" + strconv.FormatUint(h.calls.Add(1), 36)
	c := &call{
		keys: []string{k.positions(first), k.call(first, name)},
		args: append(h.common(first), r.cfg.count, r.cfg.age.Milliseconds(), r.publishCommand(), maxChannels),
	}
	for _, ch := range b.channels {
		c.keys = append(c.keys, k.stream(ch.name))
		c.args = append(c.args, ch.name, k.topic(ch.name), len(ch.bodies))
		c.args = append(c.args, ch.bodies...)
	}
	return c
}

// bucketBatch is messages of one bucket, which one script call stores.
type bucketBatch struct {
	bucket   int
	channels []*channelBatch // in the order of their first messages
}

type channelBatch struct {
	name     string
	messages []*chat.Message
	bodies   []any // the messages as JSON
}

func (b *bucketBatch) add(m *chat.Message) error {
	text, err := body{m.Sender, m.Content, m.Time.UnixMilli()}.encode()
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	at := slices.IndexFunc(b.channels, func(c *channelBatch) bool { return c.name == m.Channel })
	if at < 0 {
		at = len(b.channels)
		b.channels = append(b.channels, &channelBatch{name: m.Channel})
	}
	c := b.channels[at]
	c.messages, c.bodies = append(c.messages, m), append(c.bodies, text)
	return nil
}

// number sets the positions of the messages from the publish script's reply: the era, and
// the last position of each channel.
func (b *bucketBatch) number(reply any) error {
	text, _ := reply.(string)
	fields := strings.Fields(text)
	if len(fields) != 1+len(b.channels) {
		return fmt.Errorf("the publish script returned %.80q for %d channels", fmt.Sprint(reply), len(b.channels))
	}
	for i, c := range b.channels {
		last, err := parsePosition(fields[0], fields[1+i])
		if err != nil {
			return err
		}
		for n, m := range c.messages {
			m.Position = chat.Position{Epoch: last.Epoch, Seq: last.Seq - uint64(len(c.messages)-1-n)}
		}
	}
	return nil
}

// After implements [chat.History].
func (h *History) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	r := h.registry
	k := r.store.keys
	reply, err := h.of(channel).after.run(ctx, []string{k.positions(channel), k.stream(channel)},
		append(h.common(channel), p.Epoch, strconv.FormatUint(p.Seq, 10), max(limit.Count, 1), r.cfg.age.Milliseconds(), max(limit.Bytes, 0))...)
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
	return decodeBody(channel, p, text)
}

func decodeBody(channel string, p chat.Position, text string) (chat.Message, error) {
	var b body
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return chat.Message{}, fmt.Errorf("decoding a message: %w", err)
	}
	return chat.Message{
		Position: p, Channel: channel, Sender: b.Sender, Content: b.Content,
		Time: time.UnixMilli(b.Time).UTC(),
	}, nil
}

// encode returns a message in the form in which the publish script publishes it too.
func encode(m chat.Message) (string, error) {
	text, err := body{m.Sender, m.Content, m.Time.UnixMilli()}.encode()
	if err != nil {
		return "", fmt.Errorf("encoding a message: %w", err)
	}
	return m.Position.Epoch + " " + strconv.FormatUint(m.Position.Seq, 10) + " " + text, nil
}

// decodePublished decodes what encode, or the publish script, published: the position of
// the first message, and the bodies of one or several messages in a row, one a line. JSON
// has no line break.
func decodePublished(channel, text string) ([]chat.Message, error) {
	parts := strings.SplitN(text, " ", 3)
	if len(parts) != 3 {
		return nil, errors.New("decoding messages: want a position and a body")
	}
	p, err := parsePosition(parts[0], parts[1])
	if err != nil {
		return nil, err
	}
	msgs := make([]chat.Message, 0, 1+strings.Count(parts[2], "\n"))
	for text := range strings.SplitSeq(parts[2], "\n") {
		m, err := decodeBody(channel, p, text)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, m)
		p.Seq++
	}
	return msgs, nil
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
