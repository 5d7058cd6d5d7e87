package redisregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// expiry is when a lease that is not refreshed is over: early enough for another
// node to notice, and its events to arrive, within the lease that was asked for.
func (r *Registry) expiry() time.Duration { return r.cfg.lease * 2 / 3 }

// reply is what the report script returns.
type reply struct {
	status  string
	history string // of another node, when it differs
	era     string
	now     int64 // Redis' clock: Unix, in µs
	newest  string
	changes []outcome
}

// outcome is what became of a change.
type outcome struct {
	total      int    // the user's sockets there on all nodes
	joinSize   int    // see [chat.PresenceChange]
	otherNodes string // the other nodes, each with how many of these sockets
}

func (r *Registry) report(ctx context.Context, mode, node string, version int64, era, history string, users []string, changes []any) (reply, error) {
	k := r.store.keys
	names := append([]string{k.leases(), k.presenceEra(), k.entries(node), k.version(node), k.events(), k.eventCount(),
		k.left(), k.leftSizes(), k.newestOrder(), k.histories()}, users...)
	args := append([]any{mode, node, version, r.expiry().Milliseconds(), era, newEra(), k.eventTopic(), r.publishCommand(), history}, changes...)
	sent := time.Now()
	eval := r.store.evalAtOnce // sockets that connect wait for it
	if mode == "reap" {
		eval = r.store.eval
	}
	answer, err := eval(ctx, reportScript, names, args...)
	if err != nil {
		return reply{}, err
	}
	list, _ := answer.([]any)
	if len(list) == 0 {
		return reply{}, fmt.Errorf("an answer of another form: %T", answer)
	}
	text := func(i int) string { s, _ := list[i].(string); return s }
	rep := reply{status: text(0)}
	switch {
	case rep.status == "differs" && len(list) == 2:
		rep.history = text(1)
		return rep, nil
	case rep.status != "ok":
		return rep, nil
	case len(list) != 4+3*len(users):
		return reply{}, fmt.Errorf("an answer of %d parts to %d changes", len(list), len(users))
	}
	rep.era, rep.newest = text(1), text(3)
	if rep.now, err = strconv.ParseInt(text(2), 10, 64); err != nil {
		return reply{}, fmt.Errorf("an answer with a time that is none: %w", err)
	}
	r.clock.observe(sent, time.Now(), rep.now)
	for i := 4; i < len(list); i += 3 {
		total, _ := list[i].(int64)
		joinSize, _ := list[i+1].(int64)
		rep.changes = append(rep.changes, outcome{int(total), int(joinSize), text(i + 2)})
	}
	return rep, nil
}

// attendance is a user in a channel, as Redis keeps it.
type userPresence struct {
	JoinSize int                     `json:"n"`
	Nodes    map[string]nodePresence `json:"on"`
}

// stay is a user in a channel on one node.
type nodePresence struct {
	role    string
	sockets int
	details details
}

// UnmarshalJSON reads what the report script keeps.
func (s *nodePresence) UnmarshalJSON(text []byte) error {
	var inner string
	if err := json.Unmarshal(text, &[]any{&s.role, &s.sockets, &inner}); err != nil {
		return err
	}
	return json.Unmarshal([]byte(inner), &s.details)
}

// Connected implements [chat.Registry].
func (r *Registry) Connected(ctx context.Context, channel string) ([]chat.Presence, error) {
	if err := r.ready(); err != nil {
		return nil, err
	}
	all, err := bounded(ctx, r.store, func(ctx context.Context) (map[string]string, error) {
		owner, ofUser := strings.CutPrefix(channel, "@")
		if !ofUser {
			return r.client.HGetAll(ctx, r.store.keys.users(channel)).Result()
		}
		text, err := r.client.HGet(ctx, r.store.keys.users(""), owner).Result()
		if errors.Is(err, redis.Nil) {
			return nil, nil
		}
		return map[string]string{owner: text}, err
	})
	if err != nil {
		return nil, fmt.Errorf("redisregistry: listing who is connected: %w", err)
	}
	list := make([]chat.Presence, 0, len(all))
	for user, text := range all {
		var p userPresence
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return nil, fmt.Errorf("redisregistry: listing who is connected: %w", err)
		}
		list = append(list, p.presence(user))
	}
	slices.SortFunc(list, func(a, b chat.Presence) int { return strings.Compare(a.User.Name, b.User.Name) })
	return list, nil
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

// newest is when the newest socket there connected.
func (s nodePresence) newest() int64 {
	newest := s.details.Newest
	for _, at := range s.details.Sockets {
		newest = max(newest, at.At)
	}
	return newest
}

// reap looks for nodes that have died and has their users leave.
func (r *Registry) removeDeadNodes(ctx context.Context) {
	tick := time.NewTicker(r.cfg.lease / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// After an outage of Redis, or when this node's lease ran out, all may have run
		// out: first everybody gets the time to come back.
		if r.ready() != nil || uptime()-time.Duration(r.leaseSince.Load()) < r.expiry() {
			continue
		}
		if err := r.removeExpired(ctx); err != nil && ctx.Err() == nil {
			r.cfg.logger.Warn("looking for nodes that died", "error", err)
		}
	}
}

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
		return nil // it is about to notice, and may not be the only one
	}
	for _, node := range dead {
		if err := r.removeNode(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

// bury has the users of a node leave, a batch at a time. All nodes may do it at
// once: each entry is found by one.
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
		rep, err := r.report(ctx, "reap", node, 0, "", "", users, changes)
		if err != nil || rep.status != "ok" {
			return err
		}
		if len(entries) < reportAtOnce {
			r.cfg.logger.Warn("a node has died, its users have left", "node", node)
			return nil
		}
	}
}
