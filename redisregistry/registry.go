package redisregistry

import (
	"context"
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
type Registry struct {
	cfg      config
	client   redis.UniversalClient
	store    *store
	memory   *chat.MemoryRegistry
	reporter *presenceReporter
	subs     *subscriptions
	own      *History
	clock    clock
	orders   orderLog
	node     string   // this one among all
	tags     []string // hash tags of all that is used

	history         atomic.Pointer[chat.History]
	changed         atomic.Pointer[func(chat.PresenceChange)] // nil before Start
	connected       atomic.Bool                               // to a Redis that answers
	sharded         atomic.Bool                               // pub/sub, known once connected
	disconnectedBy  atomic.Pointer[reason]
	unsuitableRedis atomic.Pointer[reason] // Redis is too old, or evicts
	otherHistory    atomic.Pointer[reason] // the history, from that of other nodes
	historySet      atomic.Bool            // Start has settled the history
	started         atomic.Bool            // Start was called, and did not fail
	leaseSince      atomic.Int64           // connected, with a lease that did not run out: uptime

	answers        *answers
	eventLog       eventLog      // owned by tellEvents
	eventSignal    chan struct{} // has something when there may be new events
	orderSignal    chan struct{} // has something when there may be orders
	checkAllSignal chan struct{} // has something when messages may have been missed
	unpublished    *unpublished
	stop           context.CancelFunc
	// running are the goroutines that stop ends.
	running sync.WaitGroup

	mu      sync.Mutex         // guards members and what they hold
	members map[string]*member // by the socket's id
}

// member is a socket of this node.
type member struct {
	socket   chat.Socket
	user     string
	channels []string // joined or being joined

	// Guarded by the ledger's mu, and known once Redis was told of the socket.
	reportedAt  int64  // when that was: Redis' clock, Unix, in µs; 0: not yet
	newestOrder *mark  // the newest order then
	rank        int    // among the user's sockets here
	otherNodes  string // other nodes with sockets of the user then, as in outcome
	closing     bool   // an order closes it
}

// outage is why Redis cannot be used.
type reason struct{ err error }

var (
	_ chat.Registry = (*Registry)(nil)
	_ chat.History  = (*History)(nil)
)

// New makes the registry of this node. It does not wait for Redis: until that
// answers, sockets cannot connect and [Registry.Check] says why. The client stays
// the caller's, who closes it after [Registry.Shutdown].
func New(client redis.UniversalClient, opts ...Option) (*Registry, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	switch c := client.(type) {
	case nil:
		return nil, errors.New("redisregistry: no client")
	case *redis.Ring:
		return nil, errors.New("redisregistry: a Ring has no pub/sub and no scripts that all its servers share")
	case *redis.ClusterClient:
		if c.Options().ReadOnly {
			return nil, errors.New("redisregistry: a client that reads from replicas may read what is over")
		}
	}
	r := &Registry{
		cfg: cfg, client: client, node: newNode(),
		orders:         orderLog{runMissed: make(chan chan error)},
		store:          &store{client: client, timeout: cfg.timeout, keys: keys{cfg.prefix}, slots: newSlots(client)},
		memory:         chat.NewMemoryRegistry(),
		subs:           &subscriptions{topics: make(map[string]*subscription)},
		tags:           []string{presenceTag},
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

// Stats implements [chat.Registry].
func (r *Registry) Stats() chat.RegistryStats {
	s := r.memory.Stats()
	s.DroppedPresence = r.eventLog.dropped.Load()
	return s
}

// Check says whether messages get through: whether a probe that this node published
// came back to it within the last seconds, and whether Redis took anything within a
// lease, which a full one does not. Its error holds what Redis said last. It returns
// at once.
func (r *Registry) Check(context.Context) error {
	if err := r.ready(); err != nil {
		return err
	}
	if quiet := uptime() - time.Duration(r.reporter.lastReport.Load()); quiet > r.cfg.lease {
		err := fmt.Errorf("redisregistry: Redis has taken nothing for %v", quiet.Truncate(time.Second))
		if cause := r.reporter.failure(); cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		return err
	}
	return nil
}

// ready is nil while Redis answers. What needs it fails at once otherwise.
func (r *Registry) ready() error {
	if err := r.refused(); err != nil {
		return err
	}
	if r.connected.Load() {
		return nil
	}
	return fmt.Errorf("redisregistry: Redis cannot be used: %w", r.disconnectedBy.Load().err)
}

// Shutdown has this node's users leave, and ends the registry. Call it after
// [chat.Service.Shutdown]. What Redis could not be told until ctx is done, the other
// nodes find out when the lease runs out.
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

// Announce implements [chat.Registry].
func (r *Registry) Announce(channel string, adminsOnly bool, events []chat.Event) {
	r.memory.Announce(channel, adminsOnly, events)
}

// Flush implements [chat.Registry].
func (r *Registry) Flush(ctx context.Context) error { return r.memory.Flush(ctx) }

// Add implements [chat.Registry].
func (r *Registry) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	if err := r.ready(); err != nil {
		return 0, err
	}
	m := &member{socket: s, user: s.User().Name}
	r.mu.Lock()
	// A user's sockets are in the same order in memory and in the ledger.
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
		_ = r.Remove(ctx, s) // it returns none
		return 0, fmt.Errorf("redisregistry: adding a socket: %w", err)
	}
	return n, nil
}

// wait waits until Redis was told of m, and returns how many sockets its user had
// when it came.
func (r *Registry) awaitReport(ctx context.Context, reported <-chan receipt, m *member) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.timeout)
	defer cancel()
	select {
	case rec := <-reported:
		// Of those that were told together it counts the ones before it.
		return rec.total - (len(rec.members) - 1 - slices.Index(rec.members, m)), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for Redis to be told: %w", ctx.Err())
	}
}

// Remove implements [chat.Registry]. Redis is told in the background, for as
// long as it takes.
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

func (r *Registry) leaveChannel(m *member, channel string) {
	if listed(channel) {
		r.reporter.remove(channel, m)
	}
	r.subs.release(r.store.keys.topic(channel))
}

// listed reports whether Redis keeps a list of the channel's users. The users in the
// common channel and in users' channels are found among those connected.
func listed(channel string) bool { return channel != "" && !strings.HasPrefix(channel, "@") }

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
		return chat.Position{}, errors.New("redisregistry: socket is not connected")
	}
	if !isNew {
		// In another role, perhaps.
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

// enter subscribes to the channel before the history is asked where it stands, so
// that nothing falls between.
func (r *Registry) joinChannel(ctx context.Context, m *member, channel string) (chat.Position, error) {
	live := r.subs.acquire(r.store.keys.topic(channel), &channel)
	var reported <-chan receipt
	if listed(channel) {
		reported = r.reporter.add(channel, m)
	}
	if err := r.ready(); err != nil {
		return chat.Position{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, r.cfg.timeout)
	defer cancel()
	select {
	case <-live:
	case <-waiting.Done():
		return chat.Position{}, fmt.Errorf("waiting for a subscription: %w", waiting.Err())
	}
	if reported != nil {
		if _, err := r.awaitReport(waiting, reported, m); err != nil {
			return chat.Position{}, err
		}
	}
	return r.memory.Join(ctx, m.socket, channel)
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

// Publish implements [chat.Registry]. The registry's own History has published its
// messages to the other nodes already. Those of another history are published here. After
// an error the other nodes get them as soon as Redis can publish them.
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

// publishStored delivers messages that another History has stored, on this node and the
// others. They reach Redis in one round trip.
func (r *Registry) publishStored(ctx context.Context, msgs ...chat.Message) error {
	if err := r.memory.Publish(ctx, msgs...); err != nil {
		return err
	}
	if err := r.ready(); err != nil {
		return err
	}
	topics, texts := make([]string, len(msgs)), make([]string, len(msgs))
	for i, m := range msgs {
		text, err := encode(m)
		if err != nil {
			return fmt.Errorf("redisregistry: publishing a message: %w", err)
		}
		topics[i], texts[i] = r.store.keys.topic(m.Channel), text
	}
	if err := r.publish(ctx, r.client, topics, texts); err != nil {
		return fmt.Errorf("redisregistry: publishing a message: %w", err)
	}
	return nil
}

// publish publishes texts to as many topics with a client, the registry's or a link's.
func (r *Registry) publish(ctx context.Context, client redis.UniversalClient, topics, texts []string) error {
	_, err := bounded(ctx, r.store, func(ctx context.Context) ([]redis.Cmder, error) {
		return client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, topic := range topics {
				if r.sharded.Load() {
					pipe.SPublish(ctx, topic, texts[i])
				} else {
					pipe.Publish(ctx, topic, texts[i])
				}
			}
			return nil
		})
	})
	return err
}

// publishCommand is what scripts publish with.
func (r *Registry) publishCommand() string {
	if r.sharded.Load() {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// heard takes what came by a topic.
func (r *Registry) receive(topic, text string) {
	switch topic {
	case r.store.keys.eventTopic():
		signal(r.eventSignal)
		return
	case r.store.keys.orderTopic():
		signal(r.orderSignal)
		return
	case r.store.keys.nodeTopic(r.node):
		r.reporter.renewLease()
		return
	}
	channel := r.subs.channel(topic)
	if channel == nil {
		return // unsubscribed meanwhile
	}
	msgs, err := decodePublished(*channel, text)
	if err != nil {
		r.cfg.logger.Error("a message that cannot be read came by pub/sub", "error", err)
		return
	}
	for _, m := range msgs {
		// It waits while more is handed on than the shards take; never for a socket.
		_ = r.memory.Publish(context.Background(), m) // an error is the context's end
	}
}

// signal has whoever waits for c go on, now or later.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
