// Command centrifuge serves sockets with github.com/centrifugal/centrifuge.
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/reto10/chat/test/bench/peer"
)

func main() { peer.Main(newCentrifuge, "centrifuge") }

// everyone is the channel of all users of centrifuge.
const everyone = "everyone"

// A channel's history, if there is one, is bounded as in this library.
const (
	historySize = 1000
	historyTTL  = 24 * time.Hour
)

// node is centrifuge with its memory broker. A middleware identifies users, the server
// subscribes them, and features that this library lacks are off, as are presence and
// compression, and history unless a row needs it.
type node struct {
	node    *centrifuge.Node
	handler http.Handler
	publish []centrifuge.PublishOption
}

func newCentrifuge(_ string, s peer.Settings) (peer.Peer, error) {
	n, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	n.OnConnecting(func(ctx context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		options := centrifuge.SubscribeOptions{EnableRecovery: s.History}
		subscriptions := map[string]centrifuge.SubscribeOptions{everyone: options}
		if s.Direct {
			if who, ok := centrifuge.GetCredentials(ctx); ok {
				subscriptions[userChannel(who.UserID)] = options
			}
		}
		for _, channel := range e.Channels {
			subscriptions[channel] = options
		}
		return centrifuge.ConnectReply{Subscriptions: subscriptions}, nil
	})
	n.OnConnect(func(c *centrifuge.Client) {
		c.OnRPC(func(e centrifuge.RPCEvent, reply centrifuge.RPCCallback) {
			b, err := peer.Answer(e.Data)
			reply(centrifuge.RPCReply{Data: b}, err)
		})
	})
	if err := n.Run(); err != nil {
		return nil, err
	}
	sockets := centrifuge.NewWebsocketHandler(n, centrifuge.WebsocketConfig{
		ReadBufferSize:     1024,
		UseWriteBufferPool: true,
	})
	c := node{node: n, handler: known(sockets)}
	if s.History {
		c.publish = append(c.publish, centrifuge.WithHistory(historySize, historyTTL))
	}
	return c, nil
}

// known tells centrifuge who the user is.
func known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := &centrifuge.Credentials{UserID: peer.User(r)}
		next.ServeHTTP(w, r.WithContext(centrifuge.SetCredentials(r.Context(), who)))
	})
}

func (c node) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

func (c node) Sockets() int { return c.node.Hub().NumClients() }

// userChannel is the channel of a user, to which the server subscribes their sockets.
func userChannel(user string) string { return "@" + user }

func (c node) PublishTo(user, content string) error { return c.Publish(userChannel(user), content) }

func (c node) Publish(channel, content string) error {
	if channel == "" {
		channel = everyone
	}
	data, err := json.Marshal(map[string]string{"sender": peer.Sender, "content": content})
	if err != nil {
		return err
	}
	_, err = c.node.Publish(channel, data, c.publish...)
	return err
}
