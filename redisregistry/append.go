package redisregistry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// Append implements [chat.History], and publishes the messages to the other nodes. Messages
// that callers append at the same time share a script call; in a Cluster, those of a bucket.
// More than 128 messages, or more than 1 MiB of content, take several calls.
func (h *History) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	if err := h.registry.ready(); err != nil {
		return nil, err
	}
	stored := slices.Clone(msgs)
	err := ctx.Err()
	for i := 0; i < len(stored) && err == nil; i++ {
		err = checkBody(&stored[i])
	}
	for rest := stored; len(rest) > 0 && err == nil; {
		n := fits(rest)
		err = h.appendOnce(ctx, rest[:n])
		rest = rest[n:]
	}
	if err != nil {
		return nil, fmt.Errorf("redisregistry: storing messages: %w", err)
	}
	return stored, nil
}

// appendOnce stores messages in one batch of each writer, and sets their positions. After an
// error they still belong to the writers: the caller must not touch them.
func (h *History) appendOnce(ctx context.Context, msgs []chat.Message) error {
	if len(msgs) == 1 { // without allocations
		return h.writerOf(msgs[0].Channel).add([]*chat.Message{&msgs[0]}).wait(ctx)
	}
	var writers []*writer
	var parts [][]*chat.Message // for each writer
	for i := range msgs {
		w := h.writerOf(msgs[i].Channel)
		at := slices.Index(writers, w)
		if at < 0 {
			at = len(writers)
			writers, parts = append(writers, w), append(parts, nil)
		}
		parts[at] = append(parts[at], &msgs[i])
	}
	tickets := make([]ticket, len(writers))
	for i, w := range writers {
		tickets[i] = w.add(parts[i])
	}
	var failed error // the first error: mostly all fail alike
	for _, t := range tickets {
		if err := t.wait(ctx); failed == nil {
			failed = err
		}
	}
	return failed
}

// writerOf returns the writer that stores the messages of a channel.
func (h *History) writerOf(channel string) *writer {
	if len(h.writers) == 1 {
		return h.writers[0]
	}
	return h.writers[bucketOf(channel)]
}

// storeBatch stores a batch of a writer.
func (h *History) storeBatch(ctx context.Context, messages []*chat.Message) (errs []error) {
	errs, err := h.callPublish(ctx, messages)
	if redis.HasErrorPrefix(err, "CROSSSLOT") {
		// The client is not a ClusterClient, but Redis is a Cluster: behind a proxy, of one node,
		// or wrapped. It has stored nothing.
		return h.storeBuckets(ctx, messages)
	}
	if err != nil {
		return errorForAll(len(messages), err)
	}
	return errs
}

// storeBuckets stores the messages of each bucket with a call of its own.
func (h *History) storeBuckets(ctx context.Context, messages []*chat.Message) []error {
	var parts [buckets][]*chat.Message // as long as messages, nil for those of other buckets
	for i, m := range messages {
		if m == nil {
			continue
		}
		part := &parts[bucketOf(m.Channel)]
		if *part == nil {
			*part = make([]*chat.Message, len(messages))
		}
		(*part)[i] = m
	}
	errs := make([]error, len(messages))
	for _, part := range parts {
		if part == nil {
			continue
		}
		some, err := h.callPublish(ctx, part)
		for i, m := range part {
			if m != nil && err != nil {
				errs[i] = err
			} else if m != nil && some != nil {
				errs[i] = some[i]
			}
		}
	}
	return errs
}

// callPublish calls the publish script once. errs is nil, or has an error or nil for each
// message; err is that of the whole call.
func (h *History) callPublish(ctx context.Context, messages []*chat.Message) (errs []error, err error) {
	b := newPublishCall(messages)
	reply, err := h.registry.store.run(ctx, publishScript, h.arguments(b))
	if err != nil {
		return nil, err
	}
	return h.number(b, reply)
}

// publishCall is the messages of a call of the publish script, by channel. The channels of a
// bucket stand together.
type publishCall struct {
	messages []*chat.Message // nil ones are left out
	next     []int           // for each message the next one of its channel, 0 for none
	channels []publishChannel
	at       time.Duration // uptime when the call was made
}

type publishChannel struct {
	name               string
	bucket             int
	first, last, count int  // of messages
	live               bool // its stream has to live on
}

func newPublishCall(messages []*chat.Message) *publishCall {
	b := &publishCall{messages: messages, next: make([]int, len(messages)), at: uptime()}
	at := 0
	for i, m := range messages {
		if m == nil {
			continue
		}
		if at >= len(b.channels) || b.channels[at].name != m.Channel { // many are in the channel of the one before
			at = slices.IndexFunc(b.channels, func(c publishChannel) bool { return c.name == m.Channel })
		}
		if at < 0 {
			at = len(b.channels)
			b.channels = append(b.channels, publishChannel{name: m.Channel, bucket: bucketOf(m.Channel), first: i})
		} else {
			b.next[b.channels[at].last] = i
		}
		b.channels[at].last = i
		b.channels[at].count++
	}
	slices.SortStableFunc(b.channels, func(x, y publishChannel) int { return x.bucket - y.bucket })
	return b
}

// size returns about how many bytes the bodies and the names of the channels take.
func (b *publishCall) size() (size int) {
	for _, m := range b.messages {
		if m != nil {
			size += len(m.Content) + len(m.Sender) + 16
		}
	}
	for i := range b.channels {
		size += 3 * len(b.channels[i].name)
	}
	return size
}

// keys returns how many keys the script gets.
func (b *publishCall) keys() int {
	n := 1 + len(b.channels)
	for i := 0; i < len(b.channels); i = b.bucketEnd(i) {
		n++
	}
	return n
}

// bucketEnd returns the end of the channels that are in the same bucket as the one at i.
func (b *publishCall) bucketEnd(i int) int {
	end := i + 1
	for end < len(b.channels) && b.channels[end].bucket == b.channels[i].bucket {
		end++
	}
	return end
}

// arguments returns the arguments of the publish script for a call.
func (h *History) arguments(b *publishCall) *arguments {
	r, k := h.registry, h.registry.store.keys
	a := &arguments{text: make([]byte, 0, b.size()+len(b.channels)*(3*len(k.prefix)+64)+256)}
	a.int(b.keys())
	tag := r.tags[b.channels[0].bucket]
	a.add(k.call(tag, r.node+"-"+strconv.FormatUint(h.calls.Add(1), 36)))
	for i := 0; i < len(b.channels); {
		tag := r.tags[b.channels[i].bucket]
		a.add(k.positionsOf(tag))
		for end := b.bucketEnd(i); i < end; i++ {
			a.text = k.appendStream(a.text, tag, b.channels[i].name)
			a.end()
		}
	}
	a.add(newEra())
	a.add(h.durable())
	a.int(r.cfg.count)
	a.int64(r.cfg.age.Milliseconds())
	a.int64(r.cfg.age.Milliseconds() + h.lives.part.Milliseconds() + 2) // in ms the sum cannot overflow
	a.add(r.publishCommand())
	a.int(maxChannels)
	for i := 0; i < len(b.channels); {
		channels := b.channels[i:b.bucketEnd(i)]
		a.int(len(channels))
		for _, c := range channels {
			a.add(positionField(c.name))
		}
		for at := range channels {
			c := &channels[at]
			if c.live = h.lives.due(c.name, b.at); c.live {
				a.int(-c.count)
			} else {
				a.int(c.count)
			}
		}
		for _, c := range channels {
			for at, n := c.first, 0; n < c.count; at, n = b.next[at], n+1 {
				a.text = appendBody(a.text, b.messages[at])
				a.end()
			}
		}
		i += len(channels)
	}
	return a
}

// number sets the positions of the messages that the publish script stored, and returns the
// errors of the others: nil, or one or nil for each message.
func (h *History) number(b *publishCall, reply any) (errs []error, err error) {
	text, _ := reply.(string)
	for i := 0; i < len(b.channels); {
		line, rest, _ := strings.Cut(text, "\n")
		text = rest
		era, line, _ := strings.Cut(line, "\t")
		era = h.registry.eras.kept(b.channels[i].bucket, era)
		for end := b.bucketEnd(i); i < end; i++ {
			c := &b.channels[i]
			var result string
			result, line, _ = strings.Cut(line, "\t")
			seq, stored, failure, err := parseResult(result, c.count)
			if err != nil {
				return nil, fmt.Errorf("the publish script returned %.200q for %d channels: %w", fmt.Sprint(reply), len(b.channels), err)
			}
			if c.live && failure == nil {
				h.lives.extended(c.name, b.at)
			}
			for at, n := c.first, 0; n < c.count; at, n = b.next[at], n+1 {
				if n < stored {
					b.messages[at].Position = chat.Position{Epoch: era, Seq: seq + uint64(n)}
					continue
				}
				if errs == nil {
					errs = make([]error, len(b.messages))
				}
				errs[at] = explain(failure, h.registry.cfg.prefix)
			}
		}
	}
	return errs, nil
}

// parseResult parses what the publish script returned for a channel with some messages: the
// seq of the first, how many of the first ones are stored, and the error of the others.
func parseResult(text string, messages int) (seq uint64, stored int, failure, err error) {
	first, rest, failed := strings.Cut(text, " ")
	stored = messages
	if failed {
		good, why, _ := strings.Cut(rest, " ")
		failure = redisError(why)
		if stored, err = strconv.Atoi(good); err != nil {
			return 0, 0, nil, err
		}
	}
	seq, err = strconv.ParseUint(first, 10, 64)
	return seq, stored, failure, err
}

// redisError is an error that a script returned for one channel.
type redisError string

func (e redisError) Error() string { return string(e) }

// RedisError implements [redis.Error].
func (redisError) RedisError() {}
