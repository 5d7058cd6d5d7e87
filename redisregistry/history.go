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
// It keeps things as durably as Redis is set up to. All channels begin a new epoch
// when Redis was started again or a replica took its place, whatever that has of the
// messages, unless [WithDurableRedis] says that nothing acknowledged is ever missing.
// Its methods are safe for concurrent use.
type History struct {
	registry *Registry
	calls    atomic.Uint64
	lanes    []lanes // one, or one for each bucket of a cluster
}

// lanes are one for each script.
type lanes struct{ publish, after, last lane }

func newHistory(r *Registry) *History {
	h := &History{registry: r, lanes: make([]lanes, 1)}
	if _, cluster := r.client.(*redis.ClusterClient); cluster {
		h.lanes = make([]lanes, buckets) // no master waits for another
	}
	for i := range h.lanes {
		l := &h.lanes[i]
		l.publish = lane{server: r.server, script: publishScript, most: maxBatch}
		l.after = lane{server: r.server, script: afterScript, most: maxReads}
		l.last = lane{server: r.server, script: lastScript, most: maxBatch}
	}
	return h
}

func (h *History) of(channel string) *lanes { return &h.lanes[bucketOf(channel)%len(h.lanes)] }

// common is the arguments that every script begins with.
func (h *History) common(channel string) []any {
	durable := ""
	if h.registry.cfg.durable {
		durable = "1"
	}
	return []any{newEra(), durable, channel}
}

// body is what is stored of a message beside its place and channel.
type body struct {
	Sender  string `json:"s,omitempty"`
	Content string `json:"c"`
	Time    int64  `json:"t"` // Unix, in ms
}

// encode is the body as JSON, without the escapes that only HTML needs: they would make
// six bytes of one.
func (b body) encode() (string, error) {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(b); err != nil {
		return "", err
	}
	return strings.TrimSuffix(text.String(), "\n"), nil
}

// Append implements [chat.History].
func (h *History) Append(ctx context.Context, m chat.Message) (chat.Message, error) {
	r := h.registry
	if err := r.ready(); err != nil {
		return chat.Message{}, err
	}
	text, err := body{m.Sender, m.Content, m.Time.UnixMilli()}.encode()
	if err != nil {
		return chat.Message{}, fmt.Errorf("redisregistry: encoding a message: %w", err)
	}
	k := r.server.keys
	name := r.node + "-" + strconv.FormatUint(h.calls.Add(1), 36)
	reply, err := h.of(m.Channel).publish.run(ctx, []string{k.places(m.Channel), k.stream(m.Channel), k.call(m.Channel, name)},
		append(h.common(m.Channel), text, r.cfg.count, r.cfg.age.Milliseconds(), k.topic(m.Channel),
			r.publishCommand(), name, maxChannels)...)
	if err == nil {
		m.Position, err = placeOf(reply)
	}
	if err != nil {
		// It may have been stored all the same, and not published.
		r.untold.add(m.Channel)
		return chat.Message{}, fmt.Errorf("redisregistry: storing a message: %w", err)
	}
	return m, nil
}

// After implements [chat.History].
func (h *History) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	r := h.registry
	k := r.server.keys
	reply, err := h.of(channel).after.run(ctx, []string{k.places(channel), k.stream(channel)},
		append(h.common(channel), p.Epoch, strconv.FormatUint(p.Seq, 10), max(limit.Count, 1), r.cfg.age.Milliseconds(), max(limit.Bytes, 0))...)
	var found []string
	if err == nil {
		found, err = texts(reply)
	}
	if err == nil && len(found) < 2 {
		err = fmt.Errorf("an answer of another form: %q", found)
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
	reply, err := h.of(channel).last.run(ctx, []string{h.registry.server.keys.places(channel)}, h.common(channel)...)
	var p chat.Position
	if err == nil {
		p, err = placeOf(reply)
	}
	if err != nil {
		return chat.Position{}, fmt.Errorf("redisregistry: reading a channel's last position: %w", err)
	}
	return p, nil
}

// begin has every bucket note which run of Redis serves it, and so begin an era where
// that is another one than before. A bucket that nobody used meanwhile would not show
// that another run has served it, when a master is one again that was none for a while.
func (h *History) begin(ctx context.Context) error {
	s := h.registry.server
	_, err := bounded(ctx, s, func(ctx context.Context) ([]redis.Cmder, error) {
		return s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for bucket := range buckets {
				pipe.Eval(ctx, lastScript.text, []string{s.keys.placesOf(strconv.Itoa(bucket))}, h.common("")...)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("asking which run of Redis this is (INFO): %w", err)
	}
	return nil
}

// placeOf reads "era seq", which scripts return.
func placeOf(reply any) (chat.Position, error) {
	text, _ := reply.(string)
	era, seq, ok := strings.Cut(text, " ")
	if !ok {
		return chat.Position{}, fmt.Errorf("an answer of another form: %.80q", fmt.Sprint(reply))
	}
	return parsePlace(era, seq)
}

func parsePlace(era, seq string) (chat.Position, error) {
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return chat.Position{}, fmt.Errorf("a place that is none: %w", err)
	}
	return chat.Position{Epoch: era, Seq: n}, nil
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
		Position: place, Channel: channel, Sender: b.Sender, Content: b.Content,
		Time: time.UnixMilli(b.Time).UTC(),
	}, nil
}

// encode is a message as it is published: its position and its body. The publish
// script puts the same together.
func encode(m chat.Message) (string, error) {
	text, err := body{m.Sender, m.Content, m.Time.UnixMilli()}.encode()
	if err != nil {
		return "", fmt.Errorf("encoding a message: %w", err)
	}
	return m.Position.Epoch + " " + strconv.FormatUint(m.Position.Seq, 10) + " " + text, nil
}

// decodePublished reads what encode, or the publish script, wrote.
func decodePublished(channel, text string) (chat.Message, error) {
	parts := strings.SplitN(text, " ", 3)
	if len(parts) != 3 {
		return chat.Message{}, errors.New("decoding a message: not of the form it is published in")
	}
	return decode(channel, parts[0], parts[1], parts[2])
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
