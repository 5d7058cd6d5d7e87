package redisregistry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/reto10/chat"
)

// What a node reports about its history: unknown before Start, unnamed, or historyNamed and
// the name. Only names are compared: a history without a name may wrap another.
const (
	historyUnknown = ""
	historyUnnamed = "-"
	historyNamed   = "="
)

// historyName returns what this node reports about its history.
func (r *Registry) historyName(ctx context.Context) (string, error) {
	if !r.historySet.Load() {
		return historyUnknown, nil
	}
	h := *r.history.Load()
	shared, ok := h.(chat.SharedHistory)
	if !ok {
		return historyUnnamed, nil
	}
	name, err := bounded(ctx, r.store, shared.Identity)
	if err != nil {
		return "", fmt.Errorf("reading the name of the history: %w", err)
	}
	return historyNamed + name, nil
}

// otherHistoryError is the error of a node whose history differs from that of another node.
func otherHistoryError(own, other string) error {
	own, other = strings.TrimPrefix(own, historyNamed), strings.TrimPrefix(other, historyNamed)
	return misconfigured(fmt.Sprintf("redisregistry: this node's history is %q, that of a running node is %q: all nodes need the same history (-history of chatd-cluster); to change it, stop the other nodes first", own, other))
}

// setHistory sets the history and changed, and waits until the history was compared with that
// of the other nodes.
func (r *Registry) setHistory(history chat.History, changed func(chat.PresenceChange)) error {
	if _, single := history.(*chat.MemoryHistory); single {
		return misconfigured("redisregistry: a chat.MemoryHistory belongs to one process: leave out chat.WithHistory, or pass it a history that all nodes share")
	}
	if history == nil {
		history = r.own
	}
	if changed != nil {
		r.changed.Store(&changed)
	}
	r.history.Store(&history)
	r.historySet.Store(true)
	compared := r.reporter.compareHistory()
	if !r.connected.Load() {
		return nil
	}
	select {
	case <-compared:
	case <-time.After(r.cfg.timeout):
	}
	return r.refused()
}
