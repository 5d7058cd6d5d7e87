package redisregistry

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

const (
	// ordersAtOnce is how many orders are read at once.
	ordersAtOnce = 100
	// ordersKept and ordersAge bound the orders that Redis keeps: a node that is
	// disconnected for longer, or misses more, closes all its sockets.
	ordersKept = 10_000
	ordersAge  = 24 * time.Hour
)

var (
	//go:embed lua/order.lua
	orderText string
	//go:embed lua/orders.lua
	ordersText string

	orderScript  = newScript(orderText)
	ordersScript = newScript(ordersText)
)

// mark is a position in the log of orders. Redis assigns the ids, so no clock of a node
// matters.
type mark struct {
	era string // era of the presence in Redis
	id  string // id of an order
}

// before reports whether the mark is before the order.
func (m *mark) before(o order) bool { return m.era != o.at.era || before(m.id, o.at.id) }

// order tells all nodes to close sockets of a user. A node that is disconnected carries it
// out when it reconnects.
type order struct {
	at      mark
	number  uint64
	user    string
	sockets []string // connection ids
	all     bool     // also all other sockets that were connected at that time
	code    chat.CloseCode
	reason  string
}

// orderLog is how far this node has read the orders.
type orderLog struct {
	runMissed chan chan error // a request of runMissedOrders

	mu     sync.Mutex // guards the following. Once known is true, only runOrders changes at and number
	known  bool
	at     mark // the last order that was read
	number uint64
}

// begin starts the log at the newest order, unless it has started. Earlier orders do not
// matter: this node has no sockets yet.
func (l *orderLog) begin(era, newest string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known {
		number, id := parseNewest(newest)
		l.known, l.at, l.number = true, mark{era, id}, number
	}
}

func (l *orderLog) position() (at mark, number uint64, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at, l.number, l.known
}

func (l *orderLog) move(at mark, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.number = at, number
}

// parseNewest parses the value of keys.newestOrder.
func parseNewest(text string) (number uint64, id string) {
	n, id, _ := strings.Cut(text, " ")
	number, _ = strconv.ParseUint(n, 10, 64) // 0: no order yet
	if id == "" {
		id = "0-0"
	}
	return number, id
}

// surplus returns the ids of the user's sockets that must close so that keep remain: first
// the sockets on nodes that do not answer, then the oldest.
func (r *Registry) surplus(ctx context.Context, username string, keep int) ([]string, error) {
	text, err := bounded(ctx, r.store, func(ctx context.Context) (string, error) {
		return r.client.HGet(ctx, r.store.keys.users(""), username).Result()
	})
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	var user userPresence
	if err == nil {
		err = json.Unmarshal([]byte(text), &user)
	}
	if err != nil {
		return nil, err
	}
	type found struct {
		socketReport
		node string
	}
	var all []found
	var others []string
	for node, s := range user.Nodes {
		if node != r.node {
			others = append(others, node)
		}
		for _, at := range s.details.Sockets {
			all = append(all, found{at, node})
		}
	}
	if len(all) <= keep {
		return nil, nil
	}
	alive, err := r.answers.ask(ctx, others)
	if err != nil {
		return nil, err
	}
	answered := func(f found) int {
		if f.node == r.node || alive[f.node] {
			return 1
		}
		return 0
	}
	// The sort is stable: the sockets of a node stay in the order in which they connected.
	slices.SortStableFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(answered(a), answered(b)), cmp.Compare(a.At, b.At), strings.Compare(a.node, b.node))
	})
	var ids []string
	for _, f := range all[:len(all)-keep] {
		ids = append(ids, f.ID)
	}
	return ids, nil
}

// runOrders carries out the orders of all nodes until ctx ends.
func (r *Registry) runOrders(ctx context.Context) {
	tick := time.NewTicker(r.cfg.lease / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case done := <-r.orders.runMissed:
			done <- r.runAllOrders(ctx)
			continue
		case <-r.orderSignal:
		case <-tick.C:
		}
		if r.ready() == nil {
			if err := r.runAllOrders(ctx); err != nil && ctx.Err() == nil {
				r.cfg.logger.Warn("reading orders to close sockets failed", "error", err)
			}
		}
	}
}

// runMissedOrders has runOrders carry out the orders that this node missed, and waits for it.
func (r *Registry) runMissedOrders(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case r.orders.runMissed <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runAllOrders carries out all orders that Redis has.
func (r *Registry) runAllOrders(ctx context.Context) error {
	for {
		more, err := r.runSomeOrders(ctx)
		if err != nil || !more {
			return err
		}
	}
}

// runSomeOrders carries out up to ordersAtOnce orders and reports whether there may be more.
// Carrying out an order twice changes nothing.
func (r *Registry) runSomeOrders(ctx context.Context) (more bool, err error) {
	at, number, known := r.orders.position()
	if !known {
		return false, nil // this node has no sockets yet
	}
	era, newest, orders, err := r.readOrders(ctx, at.id)
	if err != nil || era == "" {
		return false, err
	}
	if era != at.era {
		// Redis lost its data. All orders that it has now were given after that.
		r.orders.move(mark{era, "0-0"}, 0)
		return true, nil
	}
	newestNumber, newestID := parseNewest(newest)
	if before(newestID, at.id) {
		// Redis came back with older data. This node has carried out the orders that are
		// missing. New orders apply to all sockets of this node.
		r.reporter.resetMarks(mark{era, newestID})
		r.orders.move(mark{era, newestID}, newestNumber)
		return true, nil
	}
	next := newestNumber + 1
	if len(orders) > 0 {
		next = orders[0].number
	}
	if next > number+1 {
		r.cfg.logger.Warn("this node missed orders to close sockets: closing all its sockets so that clients reconnect", "count", next-number-1)
		r.closeAll("away for too long, reconnect")
	}
	for _, o := range orders {
		r.runOrder(o)
		r.orders.move(o.at, o.number)
	}
	if len(orders) == 0 {
		r.orders.move(mark{era, newestID}, newestNumber)
	}
	return len(orders) == ordersAtOnce, nil
}

// readOrders reads the orders after the one with this id.
func (r *Registry) readOrders(ctx context.Context, id string) (era, newest string, orders []order, err error) {
	k := r.store.keys
	answer, err := r.store.eval(ctx, ordersScript, []string{k.presenceEra(), k.orders(), k.newestOrder()}, id, ordersAtOnce)
	if err != nil {
		return "", "", nil, err
	}
	found, err := texts(answer)
	if err != nil {
		return "", "", nil, err
	}
	const fields = 7
	if len(found) < 2 || len(found)%fields != 2 {
		return "", "", nil, fmt.Errorf("the orders script returned %d values", len(found))
	}
	era, newest = found[0], found[1]
	for rest := found[2:]; len(rest) > 0; rest = rest[fields:] {
		o := order{at: mark{era, rest[0]}, user: rest[2], all: rest[4] == "1", reason: rest[6]}
		number, bad := strconv.ParseUint(rest[1], 10, 64)
		code, alsoBad := strconv.Atoi(rest[5])
		if err := errors.Join(bad, alsoBad, json.Unmarshal([]byte(rest[3]), &o.sockets)); err != nil {
			return "", "", nil, fmt.Errorf("decoding an order: %w", err)
		}
		o.number, o.code = number, chat.CloseCode(code)
		orders = append(orders, o)
	}
	return era, newest, orders, nil
}

// runOrder closes sockets of a user, after the frames that were broadcast to them before. On
// each node these are the user's oldest sockets.
func (r *Registry) runOrder(o order) {
	// r.mu is held over both, so that no socket is added or removed in between: keep would
	// be wrong.
	r.mu.Lock()
	defer r.mu.Unlock()
	if keep, closes := r.reporter.markClosing(o); closes {
		_, _ = r.memory.CloseUser(context.Background(), o.user, keep, o.code, o.reason) // it returns no error
	}
}

// closeAll closes all sockets of this node so that the clients reconnect.
func (r *Registry) closeAll(reason string) {
	r.mu.Lock()
	users := make(map[string]bool)
	for _, m := range r.members {
		users[m.user] = true
	}
	r.mu.Unlock()
	for user := range users {
		_, _ = r.memory.CloseUser(context.Background(), user, 0, chat.CloseGoingAway, reason) // it returns no error
	}
}
