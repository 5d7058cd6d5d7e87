// Command centrifuge serves sockets with github.com/centrifugal/centrifuge.
package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/centrifugal/centrifuge"

	"github.com/reto10/chat/test/bench/peer"
)

func main() { peer.Main(newCentrifuge, "centrifuge") }

// everyone is the channel of all users of centrifuge.
const everyone = "everyone"

// node is centrifuge with its memory broker. A middleware identifies users, the server
// subscribes them, and features that this library lacks are off, as are presence, history
// and compression.
type node struct {
	node    *centrifuge.Node
	handler http.Handler
}

func newCentrifuge(_ string, s peer.Settings) (peer.Peer, error) {
	n, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	n.OnConnecting(func(ctx context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		subscriptions := map[string]centrifuge.SubscribeOptions{everyone: {}}
		if s.Direct {
			if who, ok := centrifuge.GetCredentials(ctx); ok {
				subscriptions[userChannel(who.UserID)] = centrifuge.SubscribeOptions{}
			}
		}
		for _, channel := range e.Channels {
			subscriptions[channel] = centrifuge.SubscribeOptions{}
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
	return node{n, known(sockets)}, nil
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
	_, err = c.node.Publish(channel, data)
	return err
}
