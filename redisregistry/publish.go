package redisregistry

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// publishStored delivers messages that another History has stored, on this node and the
// others. They reach Redis in one round trip.
func (r *Registry) publishStored(ctx context.Context, msgs ...chat.Message) error {
	for i := range msgs {
		if err := checkBody(&msgs[i]); err != nil {
			return fmt.Errorf("redisregistry: publishing a message: %w", err)
		}
	}
	if err := r.memory.Publish(ctx, msgs...); err != nil {
		return err
	}
	if err := r.ready(); err != nil {
		return err
	}
	var topics, texts []string
	for len(msgs) > 0 {
		n := inARow(msgs)
		topics, texts = append(topics, r.store.keys.topic(msgs[0].Channel)), append(texts, encodePublished(msgs[:n]))
		msgs = msgs[n:]
	}
	if err := r.publish(ctx, r.client, topics, texts); err != nil {
		return fmt.Errorf("redisregistry: publishing a message: %w", err)
	}
	return nil
}

// inARow returns how many of the first messages follow each other in one channel, at most as
// many as a batch has.
func inARow(msgs []chat.Message) int {
	most := fits(msgs)
	for n := 1; n < most; n++ {
		p := msgs[n-1].Position
		p.Seq++
		if msgs[n].Channel != msgs[0].Channel || msgs[n].Position != p {
			return n
		}
	}
	return most
}

// publish publishes texts[i] to topics[i]. client is the registry's or that of a link.
//
// A single text is sent without a pipeline: go-redis repeats a command on another
// connection if nobody answers on the first, and so drops dead connections sooner.
func (r *Registry) publish(ctx context.Context, client redis.UniversalClient, topics, texts []string) error {
	_, err := bounded(ctx, r.store, func(ctx context.Context) (any, error) {
		if len(topics) == 1 {
			return nil, r.publishOne(ctx, client, topics[0], texts[0])
		}
		return client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, topic := range topics {
				_ = r.publishOne(ctx, pipe, topic, texts[i]) // Pipelined returns the first error
			}
			return nil
		})
	})
	return err
}

func (r *Registry) publishOne(ctx context.Context, client redis.Cmdable, topic, text string) error {
	if r.sharded.Load() {
		return client.SPublish(ctx, topic, text).Err()
	}
	return client.Publish(ctx, topic, text).Err()
}

// publishCommand is the command with which scripts publish.
func (r *Registry) publishCommand() string {
	if r.sharded.Load() {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// receive handles a pub/sub message.
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
	msgs, err := r.decodePublished(*channel, text)
	if err != nil {
		r.cfg.logger.Error("decoding a pub/sub message failed", "topic", topic, "error", err)
		return
	}
	// Publish may wait for the hub's inboxes, never for a socket.
	_ = r.memory.Publish(context.Background(), msgs...) // it fails only when the context ends
}

// signal wakes the goroutine that receives from c, or the next one that does. c has a buffer
// of one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
