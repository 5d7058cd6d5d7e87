package redisregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// maxChannels is how many channels a bucket has before it begins a new era: what
// Redis keeps of channels that have nothing any more is bounded.
const maxChannels = 100_000

// History is the [chat.History] on a Registry's Redis. What it has appended is
// published to all nodes already.
//
// It keeps things as durably as Redis is set up to. When Redis comes back with less
// than what the nodes have seen, the channels concerned begin a new epoch.
// Its methods are safe for concurrent use.
type History struct {
	registry *Registry
	calls    atomic.Uint64
	lanes    []lane // one, or one for each bucket of a cluster
}

func newHistory(r *Registry) *History {
	h := &History{registry: r, lanes: make([]lane, 1)}
	if _, cluster := r.client.(*redis.ClusterClient); cluster {
		h.lanes = make([]lane, buckets) // no master waits for another
	}
	for i := range h.lanes {
		h.lanes[i].server, h.lanes[i].script = r.server, publishScript
	}
	return h
}

func (h *History) lane(channel string) *lane { return &h.lanes[bucketOf(channel)%len(h.lanes)] }

// body is what is stored of a message beside its place and channel.
type body struct {
	Sender  string `json:"s,omitempty"`
	Content string `json:"c"`
	Time    int64  `json:"t"` // Unix, in ms
}

// Append implements [chat.History].
func (h *History) Append(ctx context.Context, m chat.Message) (chat.Message, error) {
	r := h.registry
	if err := r.ready(); err != nil {
		return chat.Message{}, err
	}
	text, err := json.Marshal(body{m.Sender, m.Content, m.Time.UnixMilli()})
	if err != nil {
		return chat.Message{}, fmt.Errorf("redisregistry: encoding a message: %w", err)
	}
	k := r.server.keys
	before := r.server.sighted(m.Channel)
	name := r.node + "-" + strconv.FormatUint(h.calls.Add(1), 36)
	reply, err := h.lane(m.Channel).run(ctx, []string{k.places(m.Channel), k.stream(m.Channel), k.call(m.Channel, name)},
		newEra(), m.Channel, text, r.cfg.count, r.cfg.age.Milliseconds(), k.topic(m.Channel),
		r.publishCommand(), name, maxChannels)
	if err != nil {
		return chat.Message{}, fmt.Errorf("redisregistry: storing a message: %w", err)
	}
	parts, err := words(reply, 3)
	if err != nil {
		return chat.Message{}, fmt.Errorf("redisregistry: storing a message: %w", err)
	}
	total, err := strconv.ParseUint(parts[2], 10, 64)
	if err == nil {
		m.Place, err = parsePlace(parts[0], parts[1])
	}
	if err != nil {
		return chat.Message{}, fmt.Errorf("redisregistry: storing a message: %w", err)
	}
	if m.Place.Epoch == before.place.Epoch && total <= before.total {
		// It went to a place that had another message when this call began: whoever
		// knows that one would never get this.
		_, err := bounded(ctx, r.server, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, r.server.checkIn(ctx, time.Now())
		})
		return chat.Message{}, fmt.Errorf("redisregistry: storing a message: %w", errors.Join(errRegressed, err))
	}
	r.server.see(m, total, name)
	return m, nil
}

// After implements [chat.History].
func (h *History) After(ctx context.Context, channel string, p chat.Place, limit int) ([]chat.Message, error) {
	r := h.registry
	k := r.server.keys
	gone := func() error {
		return fmt.Errorf("redisregistry: after %s: %w", chat.FormatID(channel, p), chat.ErrGone)
	}
	reply, err := r.server.eval(ctx, afterScript, []string{k.places(channel), k.stream(channel)},
		channel, p.Epoch, strconv.FormatUint(p.Seq, 10), max(limit, 1))
	if err != nil {
		return nil, fmt.Errorf("redisregistry: reading the history: %w", err)
	}
	found, err := texts(reply)
	if err != nil {
		return nil, fmt.Errorf("redisregistry: reading the history: %w", err)
	}
	if len(found) < 2 {
		return nil, gone()
	}
	last, err := parsePlace(found[0], found[1])
	if err != nil {
		return nil, fmt.Errorf("redisregistry: reading the history: %w", err)
	}
	found = found[2:]
	if p != (chat.Place{}) {
		last.Epoch = p.Epoch
		if len(found) == 0 && p.Seq < last.Seq {
			return nil, gone() // too old
		}
	}
	msgs := make([]chat.Message, 0, len(found)/2)
	for i := 0; i+1 < len(found); i += 2 {
		m, err := decode(channel, last.Epoch, found[i], found[i+1])
		if err != nil {
			return nil, fmt.Errorf("redisregistry: reading the history: %w", err)
		}
		if (i > 0 || p != (chat.Place{})) && m.Place.Seq != p.Seq+1 {
			return nil, gone() // trimmed, or somebody's XDEL
		}
		p = m.Place
		msgs = append(msgs, m)
	}
	return msgs[:min(len(msgs), max(limit, 0))], nil
}

// Last implements [chat.History].
func (h *History) Last(ctx context.Context, channel string) (chat.Place, error) {
	s := h.registry.server
	reply, err := s.eval(ctx, lastScript, []string{s.keys.places(channel)}, newEra(), channel)
	if err != nil {
		return chat.Place{}, fmt.Errorf("redisregistry: reading a channel's last place: %w", err)
	}
	parts, err := words(reply, 2)
	if err != nil {
		return chat.Place{}, fmt.Errorf("redisregistry: reading a channel's last place: %w", err)
	}
	return parsePlace(parts[0], parts[1])
}

func parsePlace(era, seq string) (chat.Place, error) {
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return chat.Place{}, fmt.Errorf("a place that is none: %w", err)
	}
	return chat.Place{Epoch: era, Seq: n}, nil
}

func decode(channel, era, seq, text string) (chat.Message, error) {
	place, err := parsePlace(era, seq)
	if err != nil {
		return chat.Message{}, err
	}
	var b body
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return chat.Message{}, fmt.Errorf("decoding a message: %w", err)
	}
	return chat.Message{
		Place: place, Channel: channel, Sender: b.Sender, Content: b.Content,
		Time: time.UnixMilli(b.Time).UTC(),
	}, nil
}

// encode is a message as it is published: its place, the total of its era and the
// name of the call that stored it, both for [server.see], and its body. The publish
// script puts the same together.
func encode(m chat.Message) (string, error) {
	text, err := json.Marshal(body{m.Sender, m.Content, m.Time.UnixMilli()})
	if err != nil {
		return "", fmt.Errorf("encoding a message: %w", err)
	}
	return m.Place.Epoch + " " + strconv.FormatUint(m.Place.Seq, 10) + " 0 - " + string(text), nil
}

// decodePublished reads what encode, or the publish script, wrote.
func decodePublished(channel, text string) (m chat.Message, total uint64, name string, err error) {
	parts := strings.SplitN(text, " ", 5)
	if len(parts) != 5 {
		return m, 0, "", errors.New("decoding a message: not of the form it is published in")
	}
	total, err = strconv.ParseUint(parts[2], 10, 64)
	if err != nil {
		return m, 0, "", fmt.Errorf("decoding a message: %w", err)
	}
	m, err = decode(channel, parts[0], parts[1], parts[4])
	return m, total, parts[3], err
}

// texts is what a script returned, a list of strings.
func texts(reply any) ([]string, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("an answer of another form: %T", reply)
	}
	found := make([]string, len(list))
	for i, v := range list {
		if found[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("an answer of another form: %T", v)
		}
	}
	return found, nil
}
