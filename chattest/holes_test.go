package chattest_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
)

// sparse is a history in memory from which single messages can be removed.
type sparse struct {
	mu   sync.Mutex
	last map[string]uint64
	kept map[string]map[uint64]chat.Message
}

func newSparse() *sparse {
	return &sparse{last: make(map[string]uint64), kept: make(map[string]map[uint64]chat.Message)}
}

const sparseEpoch = "sparse"

func (s *sparse) Append(_ context.Context, msgs ...chat.Message) (stored []chat.Message, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range msgs {
		s.last[m.Channel]++
		m.Position = chat.Position{Epoch: sparseEpoch, Seq: s.last[m.Channel]}
		if s.kept[m.Channel] == nil {
			s.kept[m.Channel] = make(map[uint64]chat.Message)
		}
		s.kept[m.Channel][m.Position.Seq] = m
		stored = append(stored, m)
	}
	return stored, nil
}

func (s *sparse) Last(_ context.Context, channel string) (chat.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return chat.Position{Epoch: sparseEpoch, Seq: s.last[channel]}, nil
}

func (s *sparse) After(_ context.Context, channel string, p chat.Position, limit chat.Limit) (msgs []chat.Message, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, last := s.kept[channel], s.last[channel]
	unknown := p.Epoch != sparseEpoch || p.Seq > last
	if p != (chat.Position{}) {
		if _, next := kept[p.Seq+1]; unknown || !next && p.Seq < last {
			err = fmt.Errorf("after %v: %w", p, chat.ErrGone)
		}
	}
	from := p.Seq
	if unknown {
		from = 0
	}
	bytes := 0
	for _, seq := range slices.Sorted(maps.Keys(kept)) {
		if seq <= from {
			continue
		}
		if len(msgs) >= limit.Count || limit.Bytes > 0 && bytes >= limit.Bytes {
			break
		}
		if len(msgs) > 0 && msgs[len(msgs)-1].Position.Seq+1 != seq {
			break
		}
		msgs = append(msgs, kept[seq])
		bytes += len(kept[seq].Content)
	}
	return msgs, err
}

func (s *sparse) remove(channel string, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept[channel], seq)
}

func TestHoles(t *testing.T) {
	chattest.TestHoles(t, func(*testing.T) (chat.History, func(string, uint64)) {
		s := newSparse()
		return s, s.remove
	})
}

func TestSparseHistory(t *testing.T) {
	chattest.TestHistory(t, func(*testing.T) []chat.History { return []chat.History{newSparse()} })
}
