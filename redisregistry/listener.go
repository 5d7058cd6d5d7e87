package redisregistry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// subscribeAtOnce is how many topics one command contains at most.
const subscribeAtOnce = 500

// listener receives from Redis: by one pub/sub connection, or one to each master of a Cluster
// that has sharded pub/sub. If one connection fails, the listener fails as a whole and another
// one replaces it.
type listener struct {
	registry *Registry
	sharded  bool
	links    []*link
	byTag    map[string]*link // when sharded: the link of each hash tag
	fail     context.CancelCauseFunc
}

// link is one pub/sub connection.
type link struct {
	client       redis.UniversalClient // of the master, when sharded
	addr         string                // its address
	pubsub       *redis.PubSub
	probe        string        // topic of this link's probes
	lastReceived atomic.Int64  // uptime when anything was received
	echoed       chan struct{} // gets a value when a probe arrives

	mu      sync.Mutex // guards pending
	pending []string   // topics that ask must check
	wake    chan struct{}
}

var errRemapped = errors.New("slots of the Redis Cluster moved to another master")

// newListener returns a listener for the Cluster as it is now, or for the only server. It
// requests nothing yet.
func (r *Registry) newListener(ctx context.Context, fail context.CancelCauseFunc) (*listener, error) {
	l := &listener{registry: r, sharded: r.sharded.Load(), byTag: make(map[string]*link), fail: fail}
	if !l.sharded {
		l.add(&link{client: r.client}, "0", r.client.Subscribe(ctx))
		return l, nil
	}
	masters, err := r.masters(ctx)
	if err != nil {
		return nil, err
	}
	byAddr := make(map[string]*link)
	for tag, master := range masters {
		addr := master.Options().Addr
		k := byAddr[addr]
		if k == nil {
			k = &link{client: master, addr: addr}
			byAddr[addr] = k
			l.add(k, tag, master.SSubscribe(ctx))
		}
		l.byTag[tag] = k
	}
	return l, nil
}

func (l *listener) add(k *link, tag string, pubsub *redis.PubSub) {
	k.pubsub = pubsub
	k.wake, k.echoed = make(chan struct{}, 1), make(chan struct{}, 1)
	k.probe = l.registry.store.keys.probeTopic(tag, l.registry.node)
	k.lastReceived.Store(int64(uptime()))
	k.pending = []string{k.probe}
	l.links = append(l.links, k)
}

// masters returns the master of each hash tag.
func (r *Registry) masters(ctx context.Context) (map[string]*redis.Client, error) {
	cluster, ok := r.client.(*redis.ClusterClient)
	if !ok {
		return nil, errors.New("sharded pub/sub needs the client of a Cluster")
	}
	return bounded(ctx, r.store, func(ctx context.Context) (map[string]*redis.Client, error) {
		masters := make(map[string]*redis.Client, len(r.tags))
		for _, tag := range r.tags {
			master, err := cluster.MasterForKey(ctx, "{"+tag+"}")
			if err != nil {
				return nil, fmt.Errorf("looking for a slot's master: %w", err)
			}
			masters[tag] = master
		}
		return masters, nil
	})
}

// moved reports whether slots of the Cluster moved to another master.
func (l *listener) moved(ctx context.Context) (bool, error) {
	if !l.sharded {
		return false, nil
	}
	masters, err := l.registry.masters(ctx)
	if err != nil {
		return false, err
	}
	for tag, master := range masters {
		if l.byTag[tag].addr != master.Options().Addr {
			return true, nil
		}
	}
	return false, nil
}

// run subscribes to what is needed and receives until ctx ends.
func (l *listener) run(ctx context.Context) {
	for _, k := range l.links {
		l.registry.running.Go(func() { l.receive(ctx, k) })
		l.registry.running.Go(func() { l.ask(ctx, k) })
		l.registry.running.Go(func() {
			<-ctx.Done()
			_ = k.pubsub.Close() // ends receive and ask
		})
	}
}

// want has ask check a topic. It returns at once.
func (l *listener) want(sub *subscription) {
	k := l.links[0]
	if l.sharded {
		k = l.byTag[l.registry.store.keys.tagOf(sub.topic)]
	}
	k.mu.Lock()
	k.pending = append(k.pending, sub.topic)
	k.mu.Unlock()
	signal(k.wake)
}

// ask sends the subscribe and unsubscribe commands of a link.
func (l *listener) ask(ctx context.Context, k *link) {
	signal(k.wake)
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
		k.mu.Lock()
		topics := k.pending
		k.pending = nil
		k.mu.Unlock()
		begin, end := make(map[string][]string), make(map[string][]string) // by tag
		slices.Sort(topics)
		for _, topic := range slices.Compact(topics) { // nextRequest goes by the present state
			tag := ""
			if l.sharded {
				tag = l.registry.store.keys.tagOf(topic) // a command takes the topics of one slot
			}
			request := 1
			if topic != k.probe {
				request = l.registry.subs.nextRequest(l, topic)
			}
			switch request {
			case 1:
				begin[tag] = append(begin[tag], topic)
			case -1:
				end[tag] = append(end[tag], topic)
			}
		}
		subscribe, unsubscribe := k.pubsub.Subscribe, k.pubsub.Unsubscribe
		if l.sharded {
			subscribe, unsubscribe = k.pubsub.SSubscribe, k.pubsub.SUnsubscribe
		}
		err := inParts(ctx, begin, subscribe)
		if err == nil {
			err = inParts(ctx, end, unsubscribe)
		}
		if err != nil {
			l.fail(fmt.Errorf("subscribing: %w", explain(err, l.registry.cfg.prefix)))
			return
		}
	}
}

// inParts calls do with up to subscribeAtOnce topics of one tag at a time.
func inParts(ctx context.Context, byTag map[string][]string, do func(context.Context, ...string) error) error {
	for _, topics := range byTag {
		for len(topics) > 0 {
			n := min(len(topics), subscribeAtOnce)
			if err := do(ctx, topics[:n]...); err != nil {
				return err
			}
			topics = topics[n:]
		}
	}
	return nil
}

// receive reads from a link.
func (l *listener) receive(ctx context.Context, k *link) {
	r := l.registry
	for ctx.Err() == nil {
		v, err := k.pubsub.ReceiveTimeout(ctx, 0)
		if err != nil {
			l.fail(fmt.Errorf("receiving from pub/sub: %w", explain(err, l.registry.cfg.prefix)))
			return
		}
		k.lastReceived.Store(int64(uptime()))
		switch v := v.(type) {
		case *redis.Message:
			if v.Channel == k.probe {
				signal(k.echoed)
			} else {
				r.receive(v.Channel, v.Payload)
			}
		case *redis.Subscription:
			switch v.Kind {
			case "subscribe", "ssubscribe":
				r.subs.subscribed(l, v.Channel)
			case "unsubscribe", "sunsubscribe":
				if r.subs.ended(l, v.Channel) {
					l.fail(errRemapped)
					return
				}
			}
		}
	}
}
