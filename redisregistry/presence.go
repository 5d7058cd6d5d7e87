package redisregistry

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat"
)

// expiry is the time after which a lease expires. It is shorter than WithLease, because
// another node must notice and its events must arrive within WithLease.
func (r *Registry) expiry() time.Duration { return r.cfg.lease * 2 / 3 }

// userPresence is a user in a channel, as Redis stores it.
type userPresence struct {
	JoinSize int                     `json:"n"`
	Nodes    map[string]nodePresence `json:"on"`
}

// nodePresence is a user in a channel on one node.
type nodePresence struct {
	role    string
	sockets int
	details details
}

// UnmarshalJSON decodes what the report script stores.
func (s *nodePresence) UnmarshalJSON(text []byte) error {
	var inner string
	if err := json.Unmarshal(text, &[]any{&s.role, &s.sockets, &inner}); err != nil {
		return err
	}
	return json.Unmarshal([]byte(inner), &s.details)
}

// presence sums up a user's sockets on all nodes.
func (a userPresence) presence(user string) chat.Presence {
	p := chat.Presence{User: chat.User{Name: user}}
	var first, last int64
	for _, s := range a.Nodes {
		p.Connections += s.sockets
		if since := s.details.Since; first == 0 || since < first {
			first = since
		}
		if newest := s.newest(); p.User.Role == "" || newest > last {
			last, p.User.Role = newest, s.role
		}
	}
	p.Since = time.UnixMicro(first).UTC()
	return p
}

// newest returns when the node's newest socket of the user connected.
func (s nodePresence) newest() int64 {
	newest := s.details.Newest
	for _, at := range s.details.Sockets {
		newest = max(newest, at.At)
	}
	return newest
}

// removeDeadNodes removes the users of nodes whose lease expired, until ctx ends.
func (r *Registry) removeDeadNodes(ctx context.Context) {
	tick := time.NewTicker(r.cfg.lease / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// After an outage of Redis, or after this node's own lease expired, the leases of
		// all nodes may have expired: first every node gets the time to reconnect.
		if r.ready() != nil || uptime()-time.Duration(r.leaseSince.Load()) < r.expiry() {
			continue
		}
		if err := r.removeExpired(ctx); err != nil && ctx.Err() == nil {
			r.cfg.logger.Warn("looking for expired leases failed", "error", err)
		}
	}
}

// removeExpired does one round of removeDeadNodes.
func (r *Registry) removeExpired(ctx context.Context) error {
	answer, err := r.store.eval(ctx, deadScript, []string{r.store.keys.leases()}, r.expiry().Milliseconds())
	if err != nil {
		return err
	}
	dead, err := texts(answer)
	if err != nil {
		return err
	}
	if slices.Contains(dead, r.node) {
		return nil // this node renews its lease soon, and so may the others
	}
	for _, node := range dead {
		if err := r.removeNode(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

// removeNode removes the users of a node and announces that they left, one batch after the
// other. All nodes may do this at the same time: the script removes each entry once.
func (r *Registry) removeNode(ctx context.Context, node string) error {
	for {
		entries, err := bounded(ctx, r.store, func(ctx context.Context) ([]string, error) {
			return r.client.SRandMemberN(ctx, r.store.keys.entries(node), reportAtOnce).Result()
		})
		if err != nil {
			return err
		}
		var users []string
		var changes []any
		for _, e := range entries {
			channel, user, _ := strings.Cut(e, "\n")
			users = append(users, r.store.keys.users(channel))
			changes = append(changes, channel, user, 0, "", 0, "", 0)
		}
		rep, err := r.report(ctx, "remove", node, 0, "", "", users, changes)
		if err != nil || rep.status != "ok" {
			return err
		}
		if len(entries) < reportAtOnce {
			r.cfg.logger.Warn("the lease of a node expired: announced its users as left", "node", node)
			return nil
		}
	}
}
