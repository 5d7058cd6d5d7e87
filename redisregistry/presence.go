package redisregistry

import (
	"cmp"
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

// eventsAtOnce is how many comings and goings are read at once.
const eventsAtOnce = 500

// ordersAtOnce is how many orders of other nodes are read at once.
const ordersAtOnce = 100

// expiry is when a lease that is not refreshed is over: early enough for another
// node to notice, and its events to arrive, within the lease that was asked for.
func (r *Registry) expiry() time.Duration { return r.cfg.lease * 2 / 3 }

// reply is what the report script returns.
type reply struct {
	status string
	era    string
	totals []int64 // of each change
}

func (r *Registry) report(ctx context.Context, mode, node string, version int64, era string, users []string, changes []any) (reply, error) {
	k := r.server.keys
	names := append([]string{k.leases(), k.presenceEra(), k.entries(node), k.version(node), k.events(), k.left()}, users...)
	args := append([]any{mode, node, version, r.expiry().Milliseconds(), era, newEra(), k.eventTopic(), r.publishCommand()}, changes...)
	eval := r.server.evalAtOnce // sockets that connect wait for it
	if mode == "reap" {
		eval = r.server.eval
	}
	answer, err := eval(ctx, reportScript, names, args...)
	if err != nil {
		return reply{}, err
	}
	list, _ := answer.([]any)
	if len(list) == 0 {
		return reply{}, fmt.Errorf("an answer of another form: %T", answer)
	}
	var rep reply
	rep.status, _ = list[0].(string)
	if rep.status != "ok" {
		return rep, nil
	}
	if len(list) != 2+len(users) {
		return reply{}, fmt.Errorf("an answer to %d changes when asked of %d", len(list)-2, len(users))
	}
	rep.era, _ = list[1].(string)
	for _, v := range list[2:] {
		n, _ := v.(int64)
		rep.totals = append(rep.totals, n)
	}
	return rep, nil
}

// stay is a user in a channel on one node.
type stay struct {
	role    string
	sockets int
	details details
}

// UnmarshalJSON reads what the report script keeps.
func (s *stay) UnmarshalJSON(text []byte) error {
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
	if channel != "" && !listed(channel) {
		return nil, nil
	}
	all, err := bounded(ctx, r.server, func(ctx context.Context) (map[string]string, error) {
		return r.client.HGetAll(ctx, r.server.keys.users(channel)).Result()
	})
	if err != nil {
		return nil, fmt.Errorf("redisregistry: listing who is connected: %w", err)
	}
	list := make([]chat.Presence, 0, len(all))
	for user, text := range all {
		var on map[string]stay
		if err := json.Unmarshal([]byte(text), &on); err != nil {
			return nil, fmt.Errorf("redisregistry: listing who is connected: %w", err)
		}
		p := chat.Presence{User: chat.User{Name: user}}
		var first, last int64
		for _, s := range on {
			p.Connections += s.sockets
			if since := s.details.Since; first == 0 || since < first {
				first = since
			}
			if newest := s.newest(); p.User.Role == "" || newest > last {
				last, p.User.Role = newest, s.role
			}
		}
		p.Since = time.Unix(0, first).UTC()
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b chat.Presence) int { return strings.Compare(a.User.Name, b.User.Name) })
	return list, nil
}

// newest is when the newest socket came, as far as is known.
func (s stay) newest() int64 {
	newest := s.details.Since
	for _, at := range s.details.Sockets {
		newest = max(newest, at.Since)
	}
	return newest
}

// order is what one node has another do: close these sockets of a user.
type order struct {
	User     string         `json:"user"`
	Sessions []string       `json:"sessions"`
	Code     chat.CloseCode `json:"code"`
	Reason   string         `json:"reason"`
}

// Close implements [chat.Registry].
func (r *Registry) Close(ctx context.Context, username string, keep int, code chat.CloseCode, reason string) (int, error) {
	if err := r.ready(); err != nil {
		return 0, err
	}
	text, err := bounded(ctx, r.server, func(ctx context.Context) (string, error) {
		return r.client.HGet(ctx, r.server.keys.users(""), username).Result()
	})
	if errors.Is(err, redis.Nil) {
		return 0, nil
	}
	var on map[string]stay
	if err == nil {
		err = json.Unmarshal([]byte(text), &on)
	}
	if err != nil {
		return 0, fmt.Errorf("redisregistry: looking for a user's sockets: %w", err)
	}
	type found struct {
		sitting
		node string
	}
	var all []found
	for node, s := range on {
		for _, at := range s.details.Sockets {
			all = append(all, found{at, node})
		}
	}
	// Oldest first. Those of a node are in the order in which they came there.
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(a.Since, b.Since) })
	surplus := all[:max(0, len(all)-max(0, keep))]
	byNode := make(map[string][]string)
	for _, f := range surplus {
		byNode[f.node] = append(byNode[f.node], f.Session)
	}
	var failed error
	for node, sessions := range byNode {
		o := order{username, sessions, code, reason}
		if node == r.node {
			r.carryOut(o)
		} else if err := r.give(ctx, node, o); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return 0, fmt.Errorf("redisregistry: closing a user's sockets: %w", failed)
	}
	return len(surplus), nil
}

// give leaves an order for a node, which may be away from Redis for the moment.
func (r *Registry) give(ctx context.Context, node string, o order) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	k := r.server.keys
	if _, err := bounded(ctx, r.server, func(ctx context.Context) (bool, error) {
		if err := r.client.RPush(ctx, k.orders(node), text).Err(); err != nil {
			return false, err
		}
		return r.client.PExpire(ctx, k.orders(node), 4*r.cfg.lease).Result()
	}); err != nil {
		return err
	}
	return r.publish(ctx, r.client, k.orderTopic(node), "")
}

// obey carries out what other nodes order.
func (r *Registry) obey(ctx context.Context) {
	tick := time.NewTicker(r.cfg.lease / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.ordered:
		case <-tick.C:
		}
		for more := r.ready() == nil; more; {
			n, err := r.obeySome(ctx)
			more = err == nil && n == ordersAtOnce
		}
	}
}

// obeySome carries out some orders and returns how many. They stay in Redis until that
// is done: what is read may not arrive. To carry one out again changes nothing.
func (r *Registry) obeySome(ctx context.Context) (int, error) {
	key := r.server.keys.orders(r.node)
	orders, err := bounded(ctx, r.server, func(ctx context.Context) ([]string, error) {
		return r.client.LRange(ctx, key, 0, ordersAtOnce-1).Result()
	})
	if err != nil || len(orders) == 0 {
		return 0, err
	}
	for _, text := range orders {
		var o order
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			r.cfg.logger.Error("an order of another node cannot be read", "error", err)
			continue
		}
		r.carryOut(o)
	}
	_, err = bounded(ctx, r.server, func(ctx context.Context) ([]redis.Cmder, error) {
		return r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, text := range orders {
				pipe.LRem(ctx, key, 0, text)
			}
			return nil
		})
	})
	return len(orders), err
}

// carryOut closes sockets of a user behind what was broadcast to them before. Those
// of an order are the oldest ones.
func (r *Registry) carryOut(o order) {
	here := r.ledger.of(o.User)
	keep := len(here)
	for _, s := range here {
		if slices.Contains(o.Sessions, s.Session()) {
			keep--
		}
	}
	if keep == len(here) {
		return // they have gone
	}
	_, _ = r.memory.Close(context.Background(), o.User, keep, o.Code, o.Reason) // it returns none
}

// reap looks for nodes that have died and has their users leave.
func (r *Registry) reap(ctx context.Context) {
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
		if r.ready() != nil || time.Since(time.Unix(0, r.since.Load())) < r.expiry() {
			continue
		}
		if err := r.reapOnce(ctx); err != nil && ctx.Err() == nil {
			r.cfg.logger.Warn("looking for nodes that died", "error", err)
		}
	}
}

func (r *Registry) reapOnce(ctx context.Context) error {
	answer, err := r.server.eval(ctx, deadScript, []string{r.server.keys.leases()}, r.expiry().Milliseconds())
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
		if err := r.bury(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

// bury has the users of a node leave, a batch at a time. All nodes may do it at
// once: each entry is found by one.
func (r *Registry) bury(ctx context.Context, node string) error {
	for {
		entries, err := bounded(ctx, r.server, func(ctx context.Context) ([]string, error) {
			return r.client.SRandMemberN(ctx, r.server.keys.entries(node), reportAtOnce).Result()
		})
		if err != nil {
			return err
		}
		var users []string
		var changes []any
		for _, e := range entries {
			channel, user, _ := strings.Cut(e, "\n")
			users = append(users, r.server.keys.users(channel))
			changes = append(changes, channel, user, 0, "", 0, "")
		}
		rep, err := r.report(ctx, "reap", node, 0, "", users, changes)
		if err != nil || rep.status != "ok" {
			return err
		}
		if len(entries) < reportAtOnce {
			r.cfg.logger.Warn("a node has died, its users have left", "node", node)
			return nil
		}
	}
}

// eventLog is how far this node has read the comings and goings.
type eventLog struct {
	position string          // id of the last event; "": unknown
	align    chan chan error // asks to find the position
}

// alignEvents finds where the log ends when that is not known, or when Redis came
// back with less than what was read.
func (r *Registry) alignEvents(ctx context.Context) error {
	found := make(chan error, 1)
	select {
	case r.log.align <- found:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-found:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tellEvents tells who watches of all comings and goings, in order, each once: what
// comes by pub/sub only says that there are some.
func (r *Registry) tellEvents(ctx context.Context) {
	tick := time.NewTicker(r.cfg.lease / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case found := <-r.log.align:
			found <- r.findEvents(ctx)
			continue
		case <-r.events:
		case <-tick.C:
		}
		for more := r.ready() == nil && r.log.position != ""; more; {
			n, err := r.readEvents(ctx)
			more = err == nil && n == eventsAtOnce
		}
	}
}

func (r *Registry) findEvents(ctx context.Context) error {
	newest, err := bounded(ctx, r.server, func(ctx context.Context) ([]redis.XMessage, error) {
		return r.client.XRevRangeN(ctx, r.server.keys.events(), "+", "-", 1).Result()
	})
	if err != nil {
		return fmt.Errorf("looking for the newest event: %w", err)
	}
	end := "0-0"
	if len(newest) > 0 {
		end = newest[0].ID
	}
	// An emptied Redis goes on by its clock, as does one that has forgotten some.
	if r.log.position == "" || len(newest) > 0 && before(end, r.log.position) {
		r.log.position = end
	}
	signal(r.events)
	return nil
}

// before compares ids of a stream.
func before(a, b string) bool {
	parse := func(id string) (ms, n uint64) {
		left, right, _ := strings.Cut(id, "-")
		ms, _ = strconv.ParseUint(left, 10, 64)
		n, _ = strconv.ParseUint(right, 10, 64)
		return ms, n
	}
	ams, an := parse(a)
	bms, bn := parse(b)
	return ams < bms || ams == bms && an < bn
}

func (r *Registry) readEvents(ctx context.Context) (int, error) {
	found, err := bounded(ctx, r.server, func(ctx context.Context) ([]redis.XMessage, error) {
		return r.client.XRangeN(ctx, r.server.keys.events(), "("+r.log.position, "+", eventsAtOnce).Result()
	})
	if err != nil {
		r.cfg.logger.Warn("reading who came and went", "error", err)
		return 0, err
	}
	watch := r.watch.Load()
	for _, e := range found {
		r.log.position = e.ID
		if watch == nil {
			continue
		}
		field := func(name string) string { s, _ := e.Values[name].(string); return s }
		size, _ := strconv.Atoi(field("s"))
		(*watch)(chat.PresenceChange{
			Channel: field("c"), User: chat.User{Name: field("u"), Role: field("r")},
			Joined: field("j") == "1", Size: size,
		})
	}
	return len(found), nil
}
