package redisregistry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/reto10/chat"
)

// What nodes tell each other of their history: nothing before Start, that it has no name,
// or its name after a sign. Only names are compared: a history without one may wrap
// another.
const (
	historyUnknown = ""
	historyUnnamed = "-"
	historyNamed   = "="
)

// ownIdentity names the history in Redis.
const ownIdentity = "redis"

// Identity implements [chat.SharedHistory].
func (h *History) Identity(context.Context) (string, error) { return ownIdentity, nil }

// historyName asks the history which one it is.
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
		return "", fmt.Errorf("asking the history which one it is: %w", err)
	}
	return historyNamed + name, nil
}

// differs is the error of a node with another history than the others.
func otherHistoryError(own, other string) error {
	own, other = strings.TrimPrefix(own, historyNamed), strings.TrimPrefix(other, historyNamed)
	return misconfigured(fmt.Sprintf("redisregistry: this node's history is %q, that of a running node %q: all nodes need the same history (-history of chatd-cluster); to change it, end the others first", own, other))
}

// Start implements [chat.Registry]. Without a history the service uses [Registry.History].
//
// Another history has to be shared by all nodes. A [chat.MemoryHistory] is an error. So is
// another history than that of the running nodes, if Redis is connected and says so within
// [WithTimeout]; otherwise [Registry.Check] returns that error later, and no socket can
// connect. Start may be called again after an error.
func (r *Registry) Start(history chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	if !r.started.CompareAndSwap(false, true) {
		return nil, misconfigured("redisregistry: this Registry serves another Service already: give chat.WithRegistry a new one")
	}
	if err := r.setHistory(history, changed); err != nil {
		r.started.Store(false)
		return nil, err
	}
	history = *r.history.Load()
	_, _ = r.memory.Start(history, nil) // the first call returns no error
	return history, nil
}

// settle sets the history and changed, and has the history compared with that of the
// other nodes.
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
