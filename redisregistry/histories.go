package redisregistry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/reto10/chat"
)

// What nodes tell each other of their history: nothing before ReadHistory was
// called, that it does not say which one it is, or its name behind a sign. Only names
// are compared: one without may be another's in a wrapper.
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
	if !r.chosen.Load() {
		return historyUnknown, nil
	}
	h := *r.history.Load()
	shared, ok := h.(chat.SharedHistory)
	if !ok {
		return historyUnnamed, nil
	}
	name, err := bounded(ctx, r.server, shared.Identity)
	if err != nil {
		return "", fmt.Errorf("asking the history which one it is: %w", err)
	}
	return historyNamed + name, nil
}

// differs is the error of a node with another history than the others.
func differs(own, other string) error {
	own, other = strings.TrimPrefix(own, historyNamed), strings.TrimPrefix(other, historyNamed)
	return misconfigured(fmt.Sprintf("redisregistry: this node's history is %q, that of a running node %q: all nodes need the same history (-history of chatd-cluster); to change it, end the others first", own, other))
}

// ReadHistory implements [chat.HistoryReader]. Without it missing messages are read
// from the registry's own History. One of another kind has to be shared by all
// nodes: a [chat.MemoryHistory] is an error, as is another history than that of the
// nodes that are running, if Redis is connected and they say so within [WithTimeout].
// Otherwise [Registry.Check] has that error later, and no socket can connect.
func (r *Registry) ReadHistory(h chat.History) error {
	if _, single := h.(*chat.MemoryHistory); single {
		return misconfigured("redisregistry: a history in memory is this node's alone: use chat.WithHistory with the registry's History, or another that all nodes share")
	}
	r.history.Store(&h)
	r.chosen.Store(true)
	if err := r.memory.ReadHistory(h); err != nil {
		return err
	}
	compared := r.ledger.identify()
	if !r.connected.Load() {
		return nil
	}
	select {
	case <-compared:
	case <-time.After(r.cfg.timeout):
	}
	return r.refused()
}
