package row

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reto10/chat/test/bench/load"
	"github.com/reto10/chat/test/bench/peer"
)

// nodes are two servers on one Redis. The sockets are on the second.
type nodes struct {
	*trial
	first *server
	redis *redisProcess
}

// withNodes starts two nodes and a Redis server, runs fn on them and stops them. The three
// processes share all cores, so one that waits leaves its core to the others.
func (l *Lab) withNodes(ctx context.Context, kind string, who crowd, fn func(*nodes) error) error {
	r, err := l.startRedis(ctx)
	if err != nil {
		return err
	}
	defer r.stop()
	c := config{kind: kind, backend: "redis", store: r.addr, history: true, anyCore: true}
	first, err := l.start(ctx, c)
	if err != nil {
		return err
	}
	defer first.stop()
	return l.with(ctx, c, who, func(t *trial) error { return fn(&nodes{t, first, r}) })
}

// spentByNodes is what two nodes and their Redis used so far.
type spentByNodes struct{ redis, commands, nodes float64 }

func (n *nodes) spent(ctx context.Context) (s spentByNodes, err error) {
	info, err := n.redis.info(ctx)
	if err != nil {
		return s, err
	}
	first, err := n.first.usage(ctx, false)
	if err != nil {
		return s, err
	}
	second, err := n.usage(ctx, false)
	if err != nil {
		return s, err
	}
	return spentByNodes{info.cpu(), info.number("total_commands_processed"), micros(first.CPU + second.CPU)}, nil
}

// nodeChannels is how many channels the sockets of the second node are in.
const nodeChannels = 100

// redis measures messages that 64 publishers publish on one node, into one channel and into
// 100, and that a few sockets of another node receive.
func (l *Lab) redis(ctx context.Context, kind string) (Values, error) {
	const publishers, sockets = 64, 4
	const size = 4000 // of a burst; less than the servers let wait for a socket, 1 MiB
	window := pick(l, 3*time.Second, 300*time.Millisecond)
	v := Values{}
	var received [sockets]struct{ messages, sum uint64 }
	inspect := func(s *load.Socket, message []byte) {
		if seq, _, ok := peer.Stamp(message); ok {
			received[s.Number].messages++
			received[s.Number].sum += seq
		}
	}
	who := crowd{inspect: inspect, channels: func(int) []string { return channelNames(nodeChannels) }}
	err := l.withNodes(ctx, kind, who, func(n *nodes) error {
		if err := n.connect(ctx, sockets); err != nil {
			return err
		}
		total := uint64(0)
		burst := func(messages, channels int) error {
			goal := n.Counted() + int64(messages*sockets)
			n.Expect(goal)
			o := order{n: messages, size: contentSize, channels: channels, publishers: publishers}
			if err := n.first.publish(ctx, o); err != nil {
				return err
			}
			total += uint64(messages)
			return n.Await(ctx, goal, patience)
		}
		for _, channels := range []int{1, nodeChannels} {
			if err := burst(size, channels); err != nil { // the first ones fill pools and caches
				return err
			}
			before, err := n.spent(ctx)
			if err != nil {
				return err
			}
			begin, messages := time.Now(), 0.0
			for messages == 0 || time.Since(begin) < window {
				if err := burst(size, channels); err != nil {
					return err
				}
				messages += float64(size)
			}
			took := time.Since(begin)
			after, err := n.spent(ctx)
			if err != nil {
				return err
			}
			prefix := fmt.Sprintf("redis.%d.", channels)
			v[prefix+"rate"] = messages / took.Seconds()
			v[prefix+"cpu"] = (after.redis - before.redis) / messages
			v[prefix+"commands"] = (after.commands - before.commands) / messages
			v[prefix+"nodes"] = (after.nodes - before.nodes) / messages
		}
		// The messages have the numbers from 1 to total.
		n.Each(func(*load.Socket) {}) // makes visible what was received
		for socket, r := range received {
			if r.messages != total || r.sum != total*(total+1)/2 {
				return fmt.Errorf("socket %d received %d messages of %d, not each once", socket, r.messages, total)
			}
		}
		return nil
	})
	return v, err
}

func channelNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("c%d", i)
	}
	return names
}

// redisLatency measures, one message at a time, from the call that publishes on one node until
// a socket of another node receives the message.
func (l *Lab) redisLatency(ctx context.Context, kind string) (Values, error) {
	const every = 5 * time.Millisecond
	count := pick(l, 1000, 100)
	v := Values{}
	d := &delays{}
	who := crowd{prompt: true, inspect: d.inspect, channels: func(int) []string { return channelNames(1) }}
	err := l.withNodes(ctx, kind, who, func(n *nodes) error {
		d.fleet = n.Fleet
		d.reset(count)
		if err := n.connect(ctx, 1); err != nil {
			return err
		}
		for _, messages := range []int{count / 10, count} { // the first ones fill pools and caches
			d.reset(messages)
			goal := n.Counted() + int64(messages)
			n.Expect(goal)
			o := order{n: messages, size: contentSize, channels: 1, publishers: 1, every: every}
			if err := errors.Join(n.first.publish(ctx, o), n.Await(ctx, goal, patience)); err != nil {
				return err
			}
		}
		all := Values{}
		d.report(all, "redis-latency")
		for _, id := range []string{"redis-latency.p50", "redis-latency.p99"} {
			v[id] = all[id]
		}
		return nil
	})
	return v, err
}
