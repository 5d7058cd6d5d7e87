package redisregistry

import (
	"context"
	"sync"
)

// subscriptions are the topics that this node needs. They outlive connections to Redis.
type subscriptions struct {
	mu     sync.Mutex // guards the following, and each subscription
	topics map[string]*subscription
	using  *listener // the listener; nil: none
}

// subscription is a topic that this node needs, or for which Redis has not confirmed a request
// yet.
type subscription struct {
	topic       string
	channel     *string       // nil: not a channel's topic
	needed      int           // number of users of the topic
	requested   bool          // the listener's last request was to subscribe
	unconfirmed int           // number of subscribe requests that Redis has not confirmed yet
	live        chan struct{} // closed while the subscription is confirmed
}

// acquire subscribes to a topic, once for all callers. The returned channel is closed when
// Redis has confirmed the subscription. channel is the channel whose messages the topic
// carries, or nil.
func (s *subscriptions) acquire(topic string, channel *string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.topics[topic]
	if sub == nil {
		sub = &subscription{topic: topic, channel: channel, live: make(chan struct{})}
		s.topics[topic] = sub
	}
	sub.needed++
	if sub.needed == 1 && s.using != nil {
		s.using.want(sub)
	}
	return sub.live
}

// release undoes acquire. The listener unsubscribes later.
func (s *subscriptions) release(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.topics[topic]
	if sub == nil {
		return
	}
	if sub.needed--; sub.needed > 0 {
		return
	}
	if s.using != nil {
		s.using.want(sub)
	} else {
		delete(s.topics, topic)
	}
}

// use makes l the listener that subscribes to all needed topics. nil: there is none. The
// listener before may still receive messages, but its confirmations do not count.
func (s *subscriptions) use(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.using = l
	for topic, sub := range s.topics {
		if sub.confirmed() {
			sub.live = make(chan struct{})
		}
		sub.requested, sub.unconfirmed = false, 0
		if sub.needed == 0 {
			delete(s.topics, topic)
		} else if l != nil {
			l.want(sub)
		}
	}
}

func (sub *subscription) confirmed() bool {
	select {
	case <-sub.live:
		return true
	default:
		return false
	}
}

// nextRequest returns what a listener must request from Redis for a topic: 1 to subscribe, -1
// to unsubscribe, 0 for nothing.
func (s *subscriptions) nextRequest(l *listener, topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.topics[topic]
	switch {
	case sub == nil || s.using != l:
		return 0
	case sub.needed > 0 && !sub.requested:
		sub.requested = true
		sub.unconfirmed++
		return 1
	case sub.needed == 0 && sub.requested:
		sub.requested = false
		if sub.confirmed() {
			sub.live = make(chan struct{})
		}
		s.forget(sub)
		return -1
	case sub.needed == 0:
		s.forget(sub)
	}
	return 0
}

// forget drops a topic that is not needed, but not before Redis has confirmed all requests for
// it: an old confirmation would be taken for that of a new request. It requires s.mu.
func (s *subscriptions) forget(sub *subscription) {
	if sub.needed == 0 && !sub.requested && sub.unconfirmed == 0 {
		delete(s.topics, sub.topic)
	}
}

// subscribed records that Redis confirmed a subscription.
func (s *subscriptions) subscribed(l *listener, topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.topics[topic]
	if sub == nil || s.using != l || sub.unconfirmed == 0 {
		return
	}
	if sub.unconfirmed--; sub.unconfirmed == 0 && sub.requested && !sub.confirmed() {
		close(sub.live)
	}
	s.forget(sub)
}

// ended reports whether Redis ended a subscription that is still needed, as it does when the
// topic's slot moves to another node of a Cluster.
func (s *subscriptions) ended(l *listener, topic string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.topics[topic]
	return sub != nil && s.using == l && sub.requested && sub.unconfirmed == 0
}

// awaitAll waits until all subscriptions that are needed now are confirmed.
func (s *subscriptions) awaitAll(ctx context.Context) error {
	s.mu.Lock()
	var all []<-chan struct{}
	for _, sub := range s.topics {
		if sub.needed > 0 {
			all = append(all, sub.live)
		}
	}
	s.mu.Unlock()
	for _, live := range all {
		select {
		case <-live:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// channel returns the channel whose messages a topic carries. It returns nil if there is none
// or if it is not needed.
func (s *subscriptions) channel(topic string) *string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.topics[topic]; sub != nil && sub.needed > 0 {
		return sub.channel
	}
	return nil
}

// channels returns the channels whose messages are needed.
func (s *subscriptions) channels() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]string, 0, len(s.topics))
	for _, sub := range s.topics {
		if sub.needed > 0 && sub.channel != nil {
			list = append(list, *sub.channel)
		}
	}
	return list
}
