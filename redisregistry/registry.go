package redisregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// Registry is the [chat.Registry] of several nodes on one Redis. Each node has one. It
// delivers to the node's own sockets through a [chat.MemoryRegistry]. Its methods are safe
// for concurrent use.
//
// The service stores a message with History.Append, then calls Publish. With the registry's
// own [History], Append publishes to the other nodes, because one script stores and publishes,
// and Publish delivers on this node only. With another history, Append only stores, and
// Publish does both.
type Registry struct {
	cfg      config
	client   redis.UniversalClient
	store    *store
	memory   *chat.MemoryRegistry
	reporter *presenceReporter
	subs     *subscriptions
	own      *History
	clock    clock
	eras     eras
	orders   orderLog
	node     string   // name of this node
	tags     []string // hash tags of all keys: that of the buckets, then that of presence

	history         atomic.Pointer[chat.History]
	changed         atomic.Pointer[func(chat.PresenceChange)] // nil before Start
	connected       atomic.Bool                               // messages get through
	sharded         atomic.Bool                               // Redis has sharded pub/sub; set before connected
	disconnectedBy  atomic.Pointer[reason]                    // why connected is false
	unsuitableRedis atomic.Pointer[reason]                    // Redis is too old, or evicts; nil: neither
	otherHistory    atomic.Pointer[reason]                    // the history differs from that of other nodes; nil: it does not
	historySet      atomic.Bool                               // Start has set the history
	started         atomic.Bool                               // Start was called and did not fail
	leaseSince      atomic.Int64                              // uptime since which this node is connected with an unbroken lease

	answers        *answers
	eventLog       eventLog      // owned by announceEvents, but for dropped
	eventSignal    chan struct{} // gets a value when there may be new events
	orderSignal    chan struct{} // gets a value when there may be orders
	checkAllSignal chan struct{} // gets a value when messages may have been missed in any channel
	unpublished    *unpublished
	stop           context.CancelFunc
	// running are the goroutines that stop ends.
	running sync.WaitGroup

	mu      sync.Mutex         // guards members and the channels of each
	members map[string]*member // by the connection id
}

// reason is why Redis cannot be used.
type reason struct{ err error }

var (
	_ chat.Registry = (*Registry)(nil)
	_ chat.History  = (*History)(nil)
)

// New returns the registry of this node. It does not wait for Redis: until Redis answers,
// sockets cannot connect and [Registry.Check] returns the reason. The caller owns the client
// and closes it after [Registry.Shutdown].
func New(client redis.UniversalClient, opts ...Option) (*Registry, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	switch c := client.(type) {
	case nil:
		return nil, errors.New("redisregistry: New needs a Redis client, got nil")
	case *redis.Ring:
		return nil, errors.New("redisregistry: a Ring has no pub/sub and no scripts for all its servers: pass the client of one server, of Sentinels or of a Cluster")
	case *redis.ClusterClient:
		if c.Options().ReadOnly {
			return nil, errors.New("redisregistry: the ClusterClient has ReadOnly set: replicas may return old data; unset ReadOnly, RouteByLatency and RouteRandomly")
		}
	}
	r := &Registry{
		cfg: cfg, client: client, node: newNode(),
		orders:         orderLog{runMissed: make(chan chan error)},
		store:          &store{client: client, timeout: cfg.timeout, keys: keys{cfg.prefix}, slots: newSlots(client)},
		memory:         chat.NewMemoryRegistry(),
		subs:           &subscriptions{topics: make(map[string]*subscription)},
		eventLog:       eventLog{align: make(chan chan error)},
		eventSignal:    make(chan struct{}, 1),
		orderSignal:    make(chan struct{}, 1),
		checkAllSignal: make(chan struct{}, 1),
		unpublished:    newUnpublished(),
		members:        make(map[string]*member),
	}
	for i := range buckets {
		r.tags = append(r.tags, strconv.Itoa(i))
	}
	r.tags = append(r.tags, presenceTag)
	r.reporter = newPresenceReporter(r)
	r.answers = newAnswers(r)
	r.own = newHistory(r)
	var own chat.History = r.own
	r.history.Store(&own)
	r.disconnectedBy.Store(&reason{errors.New("not connected yet")})
	r.subs.acquire(r.store.keys.eventTopic(), nil)
	r.subs.acquire(r.store.keys.orderTopic(), nil)
	r.subs.acquire(r.store.keys.nodeTopic(r.node), nil)

	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	for _, loop := range []func(context.Context){r.keepConnected, r.reporter.run, r.announceEvents, r.runOrders, r.answers.run, r.removeDeadNodes, r.findMissed, r.publishMissed} {
		r.running.Go(func() { loop(ctx) })
	}
	return r, nil
}

// History is the history on the same Redis. A service without [chat.WithHistory] uses it.
func (r *Registry) History() *History { return r.own }

// Start implements [chat.Registry]. Without a history the service uses [Registry.History].
//
// All nodes need the same history. A [chat.MemoryHistory] is an error. A history that differs
// from that of the running nodes is an error if Redis answers within [WithTimeout]; otherwise
// [Registry.Check] returns that error later, and no socket can connect. Start may be called
// again after an error.
//
// The changes of the MemoryRegistry are ignored: announceEvents reports the changes of all
// nodes to changed, this one included.
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

// Add implements [chat.Registry]. The comment "How a socket is added" in reporter.go lists
// the steps.
func (r *Registry) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	if err := r.ready(); err != nil {
		return 0, err
	}
	m := &member{socket: s, user: s.User().Name}
	r.mu.Lock()
	// r.mu is held over both, so that the user's sockets have the same order in memory and
	// in the reporter: CloseUser keeps the newest.
	if _, err := r.memory.Add(ctx, s, 0); err != nil {
		r.mu.Unlock()
		return 0, err
	}
	r.members[s.ID()] = m
	reported := r.reporter.add("", m)
	r.mu.Unlock()
	n, err := r.awaitReport(ctx, reported, m)
	if err == nil && limit > 0 && n > limit {
		n, err = r.countConnected(ctx, m)
	}
	if err != nil {
		_ = r.Remove(ctx, s) // it returns no error
		return 0, fmt.Errorf("redisregistry: adding a socket: %w", err)
	}
	return n, nil
}

// Join implements [chat.Registry].
func (r *Registry) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	r.mu.Lock()
	m := r.members[s.ID()]
	isNew := m != nil && !slices.Contains(m.channels, channel)
	if isNew {
		if m.channels == nil {
			m.channels = make([]string, 0, 3)
		}
		m.channels = append(m.channels, channel)
	}
	r.mu.Unlock()
	if m == nil {
		return chat.Position{}, errors.New("redisregistry: joining a channel: the socket was not added, or was removed")
	}
	if !isNew {
		// The socket may have another role now.
		if channel == "" || listed(channel) {
			r.reporter.repeat(channel, m)
		}
		return r.memory.Join(ctx, s, channel)
	}
	position, err := r.joinChannel(ctx, m, channel)
	if err != nil {
		_ = r.Leave(ctx, s, channel)
		return chat.Position{}, fmt.Errorf("redisregistry: joining a channel: %w", err)
	}
	return position, nil
}

// Leave implements [chat.Registry].
func (r *Registry) Leave(ctx context.Context, s chat.Socket, channel string) error {
	err := r.memory.Leave(ctx, s, channel)
	r.mu.Lock()
	m := r.members[s.ID()]
	at := -1
	if m != nil {
		at = slices.Index(m.channels, channel)
	}
	if at >= 0 {
		m.channels = slices.Delete(m.channels, at, at+1)
	}
	r.mu.Unlock()
	if at >= 0 {
		r.leaveChannel(m, channel)
	}
	return err
}

// Remove implements [chat.Registry]. It returns at once: the reporter removes the socket from
// Redis later, and retries until Redis accepts that.
func (r *Registry) Remove(ctx context.Context, s chat.Socket) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.memory.Remove(ctx, s)
	m := r.members[s.ID()]
	delete(r.members, s.ID())
	if m == nil {
		return err
	}
	for _, channel := range m.channels {
		r.leaveChannel(m, channel)
	}
	r.reporter.remove("", m)
	return err
}

// Publish implements [chat.Registry]. Append of the registry's own History has already
// published the messages to the other nodes, so Publish delivers them on this node only.
// Messages of another history are published here. If that fails, publishMissed publishes
// them when Redis can be used again.
func (r *Registry) Publish(ctx context.Context, msgs ...chat.Message) error {
	if *r.history.Load() == chat.History(r.own) {
		return r.memory.Publish(ctx, msgs...)
	}
	err := r.publishStored(ctx, msgs...)
	if err != nil {
		for _, m := range msgs {
			r.unpublished.add(m.Channel)
		}
	}
	return err
}

// Announce implements [chat.Registry].
func (r *Registry) Announce(channel string, adminsOnly bool, events []chat.Event) {
	r.memory.Announce(channel, adminsOnly, events)
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
		return nil, fmt.Errorf("redisregistry: listing connected users: %w", err)
	}
	list := make([]chat.Presence, 0, len(all))
	for user, text := range all {
		var p userPresence
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return nil, fmt.Errorf("redisregistry: listing connected users: %w", err)
		}
		list = append(list, p.presence(user))
	}
	slices.SortFunc(list, func(a, b chat.Presence) int { return strings.Compare(a.User.Name, b.User.Name) })
	return list, nil
}

// CloseUser implements [chat.Registry]. It returns the number of sockets that Redis knew to be
// connected. Nodes that are disconnected from Redis close theirs when they reconnect.
func (r *Registry) CloseUser(ctx context.Context, username string, keep int, code chat.CloseCode, reason string) (int, error) {
	if err := r.ready(); err != nil {
		return 0, err
	}
	ids := ""
	if keep > 0 {
		surplus, err := r.surplus(ctx, username, keep)
		if err != nil {
			return 0, fmt.Errorf("redisregistry: closing a user's sockets: reading them: %w", err)
		}
		if len(surplus) == 0 {
			return 0, nil
		}
		text, err := json.Marshal(surplus)
		if err != nil {
			return 0, fmt.Errorf("redisregistry: closing a user's sockets: %w", err)
		}
		ids = string(text)
	}
	k := r.store.keys
	answer, err := r.store.eval(ctx, orderScript, []string{k.presenceEra(), k.users(""), k.orders(), k.newestOrder()},
		newEra(), username, ids, int(code), reason, ordersKept, ordersAge.Milliseconds(), k.orderTopic(), r.publishCommand())
	if err != nil {
		return 0, fmt.Errorf("redisregistry: closing a user's sockets: %w", err)
	}
	signal(r.orderSignal)
	closed, _ := answer.(int64)
	return int(closed), nil
}

// Flush implements [chat.Registry].
func (r *Registry) Flush(ctx context.Context) error { return r.memory.Flush(ctx) }

// Check returns an error if messages do not get through: if this node's last probes did not
// come back through pub/sub, or if Redis accepted no report for the time of a lease, for
// example because its memory is full. The error wraps Redis' last error. Check returns at
// once.
func (r *Registry) Check(context.Context) error {
	if err := r.ready(); err != nil {
		return err
	}
	if quiet := uptime() - time.Duration(r.reporter.lastReport.Load()); quiet > r.cfg.lease {
		err := fmt.Errorf("redisregistry: Redis has accepted no report for %v", quiet.Truncate(time.Second))
		if cause := r.reporter.failure(); cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		return err
	}
	return nil
}

// ready returns an error while Redis cannot be used. Calls that need Redis return it at once.
func (r *Registry) ready() error {
	if err := r.refused(); err != nil {
		return err
	}
	if r.connected.Load() {
		return nil
	}
	return fmt.Errorf("redisregistry: Redis cannot be used: %w", r.disconnectedBy.Load().err)
}

// Stats implements [chat.Registry].
func (r *Registry) Stats() chat.RegistryStats {
	s := r.memory.Stats()
	s.DroppedPresence = r.eventLog.dropped.Load()
	return s
}

// Shutdown removes this node's sockets from Redis and stops the registry. Call it after
// [chat.Service.Shutdown]. If ctx ends first, the other nodes remove this node's users when
// its lease expires.
func (r *Registry) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	var left []chat.Socket
	for _, m := range r.members {
		left = append(left, m.socket)
	}
	r.mu.Unlock()
	for _, s := range left {
		_ = r.Remove(ctx, s)
	}
	err := r.reporter.end(ctx)
	r.disconnectedBy.Store(&reason{errClosed})
	r.connected.Store(false)
	r.stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.running.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	if err = errors.Join(err, r.store.close(ctx)); err != nil {
		return fmt.Errorf("redisregistry: shutting down: %w", err)
	}
	return nil
}
