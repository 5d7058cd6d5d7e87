package redisregistry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// answerWithin is how long a node may take to answer that it is alive.
	answerWithin = time.Second
	// askEvery is how often it is asked meanwhile, and its lease read.
	askEvery = 25 * time.Millisecond
)

// answers asks other nodes whether they are alive. A lease alone does not show this until it
// expires; a node that is asked refreshes its lease at once. Questions at the same time share
// one round trip.
type answers struct {
	registry *Registry
	wake     chan struct{} // gets a value when there are questions

	mu        sync.Mutex // guards questions and their fields
	questions []*question
}

// question asks some nodes.
type question struct {
	nodes    map[string]float64 // without an answer, with the end of the lease that was read first; 0: not read yet
	deadline time.Duration      // uptime; 0: not asked yet
	alive    map[string]bool    // nodes that have answered
	done     chan error         // gets a value when the question is answered
}

func newAnswers(r *Registry) *answers {
	return &answers{registry: r, wake: make(chan struct{}, 1)}
}

// ask returns which of the nodes renewed their lease after the call. A node has answerWithin to
// do so.
func (a *answers) ask(ctx context.Context, nodes []string) (alive map[string]bool, err error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	q := &question{nodes: make(map[string]float64, len(nodes)), alive: make(map[string]bool), done: make(chan error, 1)}
	for _, node := range nodes {
		q.nodes[node] = 0
	}
	a.mu.Lock()
	a.questions = append(a.questions, q)
	a.mu.Unlock()
	signal(a.wake)
	select {
	case err := <-q.done:
		return q.alive, err
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other nodes to answer: %w", ctx.Err()) // run answers the question later, and nobody reads that
	}
}

// run asks while there are questions, until ctx ends.
func (a *answers) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		for a.round(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(askEvery):
			}
		}
	}
}

// round reads the leases of all nodes that are asked, asks them again, and reports whether
// questions are left.
func (a *answers) round(ctx context.Context) bool {
	a.mu.Lock()
	asked := slices.Clone(a.questions)
	all := make(map[string]float64)
	for _, q := range asked {
		maps.Copy(all, q.nodes)
	}
	a.mu.Unlock()
	if len(asked) == 0 {
		return false
	}
	nodes := slices.Collect(maps.Keys(all))
	leases, err := a.askNodes(ctx, nodes)
	for i, lease := range leases {
		all[nodes[i]] = lease
	}
	now := uptime()

	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range asked {
		if err == nil && !q.update(all, now) {
			continue
		}
		a.questions = slices.DeleteFunc(a.questions, func(o *question) bool { return o == q })
		q.done <- err
	}
	return len(a.questions) > 0
}

// askNodes reads when the nodes' leases end, 0 for a node without a lease, then asks the nodes.
// A lease that changes after this is an answer.
func (a *answers) askNodes(ctx context.Context, nodes []string) ([]float64, error) {
	r := a.registry
	k := r.store.keys
	leases, err := bounded(ctx, r.store, func(ctx context.Context) ([]float64, error) {
		var leases *redis.FloatSliceCmd
		_, err := r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			leases = pipe.ZMScore(ctx, k.leases(), nodes...)
			for _, node := range nodes {
				if r.sharded.Load() {
					pipe.SPublish(ctx, k.nodeTopic(node), "")
				} else {
					pipe.Publish(ctx, k.nodeTopic(node), "")
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return leases.Result()
	})
	if err == nil && len(leases) != len(nodes) {
		err = fmt.Errorf("%d leases of %d nodes", len(leases), len(nodes))
	}
	if err != nil {
		return nil, fmt.Errorf("asking other nodes: %w", err)
	}
	return leases, nil
}

// update compares the leases with those seen first, and reports whether the question is
// answered.
func (q *question) update(leases map[string]float64, now time.Duration) bool {
	for node, first := range q.nodes {
		lease := leases[node]
		switch {
		case lease == 0: // the node has shut down, or another node removed it
			delete(q.nodes, node)
		case first == 0:
			q.nodes[node] = lease
		case lease != first:
			q.alive[node] = true
			delete(q.nodes, node)
		}
	}
	if q.deadline == 0 {
		q.deadline = now + answerWithin
	}
	return len(q.nodes) == 0 || now > q.deadline
}
