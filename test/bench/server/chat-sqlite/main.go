// Command chat-sqlite serves this library with its history in a file of SQLite.
package main

import (
	"context"
	"sync/atomic"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory/sqlite"
	"github.com/reto10/chat/test/bench/peer"
	"github.com/reto10/chat/test/bench/server/internal/chatpeer"
)

func main() { peer.Main(newService, "chat-sqlite") }

// service counts the reads of its history. Each is a query.
type service struct {
	*chatpeer.Peer
	history *counted
}

type counted struct {
	chat.History
	reads atomic.Int64
}

func newService(_ string, s peer.Settings) (peer.Peer, error) {
	history, err := sqlite.Open(context.Background(), s.Store)
	if err != nil {
		return nil, err
	}
	h := &counted{History: history}
	p, err := chatpeer.New(s, chat.WithHistory(h))
	if err != nil {
		return nil, err
	}
	return service{p, h}, nil
}

func (h *counted) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	h.reads.Add(1)
	return h.History.After(ctx, channel, p, limit)
}

// Reads returns how often the history was read.
func (s service) Reads() int64 { return s.history.reads.Load() }
