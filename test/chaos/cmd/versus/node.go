package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
)

// The kinds of nodes that are compared.
const (
	kindChat              = "chat"
	kindCentrifugeHistory = "centrifuge, history"
	kindCentrifuge        = "centrifuge, no history"
)

const (
	channel = "bench"
	// Both keep as many messages as redisregistry does by default.
	kept    = 1000
	keptFor = 24 * time.Hour
	// content has about the length of a notification.
	contentLength = 128
)

// node is one of two that share a Redis.
type node interface {
	http.Handler
	// publish returns when Redis has the message.
	publish(content string) error
}

func newNode(kind, redisAddress string) (node, error) {
	switch kind {
	case kindChat:
		return newChat(redisAddress)
	case kindCentrifugeHistory:
		return newCentrifuge(redisAddress, centrifuge.WithHistory(kept, keptFor))
	case kindCentrifuge:
		return newCentrifuge(redisAddress)
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

// chatNode is this library with its Redis registry and history.
type chatNode struct{ *chat.Service }

// anybody accepts every token, because the peers verify none.
type anybody struct{}

func (anybody) Authenticate(_ context.Context, token string) (chat.Identity, error) {
	return chat.Identity{User: chat.User{Name: token}, Expires: time.Now().Add(time.Hour)}, nil
}

func newChat(redisAddress string) (node, error) {
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	client := redis.NewClient(&redis.Options{Addr: redisAddress})
	registry, err := redisregistry.New(client, redisregistry.WithLogger(quiet))
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(startWithin); registry.Check(context.Background()) != nil; {
		if time.Now().After(deadline) {
			return nil, registry.Check(context.Background())
		}
		<-time.After(10 * time.Millisecond)
	}
	service, err := chat.New(anybody{},
		chat.WithRegistry(registry), chat.WithHistory(registry.History()), chat.WithLogger(quiet),
		chat.WithConnectRate(0, 0)) // the peer has no such limit
	if err != nil {
		return nil, err
	}
	return chatNode{service}, nil
}

func (n chatNode) publish(content string) error {
	_, err := n.Broadcast(context.Background(), chat.Message{Channel: channel, Sender: "bench", Content: content})
	return err
}

// centrifugeNode is centrifuge with its Redis broker, set up as its documentation shows.
type centrifugeNode struct {
	http.Handler
	node    *centrifuge.Node
	options []centrifuge.PublishOption
}

func newCentrifuge(redisAddress string, options ...centrifuge.PublishOption) (node, error) {
	n, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	shard, err := centrifuge.NewRedisShard(n, centrifuge.RedisShardConfig{Address: redisAddress})
	if err != nil {
		return nil, err
	}
	broker, err := centrifuge.NewRedisBroker(n, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	if err != nil {
		return nil, err
	}
	n.SetBroker(broker)
	recoverable := len(options) > 0
	n.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials: &centrifuge.Credentials{UserID: "bench"},
			Subscriptions: map[string]centrifuge.SubscribeOptions{
				channel: {EnableRecovery: recoverable, EnablePositioning: recoverable},
			},
		}, nil
	})
	n.OnConnect(func(*centrifuge.Client) {})
	if err := n.Run(); err != nil {
		return nil, err
	}
	sockets := centrifuge.NewWebsocketHandler(n, centrifuge.WebsocketConfig{})
	return centrifugeNode{sockets, n, options}, nil
}

func (n centrifugeNode) publish(content string) error {
	data, err := json.Marshal(map[string]string{"sender": "bench", "content": content})
	if err != nil {
		return err
	}
	_, err = n.node.Publish(channel, data, n.options...)
	return err
}

// published is a node's answer to a request to publish.
type published struct {
	Messages int
	Seconds  float64
}

// serve runs a node until its standard input ends, so it ends with the process that started
// it.
func serve(kind, redisAddress string) error {
	n, err := newNode(kind, redisAddress)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", n)
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, r *http.Request) { publish(w, r, n) })
	failed := make(chan error, 2)
	go func() { failed <- http.Serve(l, mux) }()
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		failed <- err
	}()
	fmt.Println(l.Addr())
	return <-failed
}

// publish runs a number of publishers for a time, together at a rate or, with rate 0, as
// fast as they can.
func publish(w http.ResponseWriter, r *http.Request, n node) {
	number := func(name string) int {
		v, err := strconv.Atoi(r.URL.Query().Get(name))
		if err != nil {
			http.Error(w, name, http.StatusBadRequest)
		}
		return v
	}
	publishers, rate, seconds := number("publishers"), number("rate"), number("seconds")
	began := time.Now()
	until := began.Add(time.Duration(seconds) * time.Second)
	var count atomic.Int64
	var failure atomic.Value
	var running sync.WaitGroup
	for range publishers {
		running.Go(func() {
			var tick <-chan time.Time
			if rate > 0 {
				ticker := time.NewTicker(time.Duration(publishers) * time.Second / time.Duration(rate))
				defer ticker.Stop()
				tick = ticker.C
			}
			for time.Now().Before(until) {
				if tick != nil {
					<-tick
				}
				if err := n.publish(stamped()); err != nil {
					failure.Store(err.Error())
					return
				}
				count.Add(1)
			}
		})
	}
	running.Wait()
	if text := failure.Load(); text != nil {
		http.Error(w, text.(string), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(published{int(count.Load()), time.Since(began).Seconds()})
}

// stamped returns a content with the time.
func stamped() string {
	stamp := strconv.FormatInt(time.Now().UnixNano(), 10)
	return stamp + strings.Repeat(".", contentLength-len(stamp))
}
