// Command chat serves this library, to be compared with its peers.
package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/bench/peer"
)

func main() { peer.Main(newChat, "chat") }

// ours is this library as an embedder uses it, with its defaults except for limits that no
// peer has.
type ours struct{ service *chat.Service }

func newChat(_ string, s peer.Settings) (peer.Peer, error) {
	auth, err := chat.NewHS256(s.Secret)
	if err != nil {
		return nil, err
	}
	opts := []chat.Option{
		chat.WithLogger(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))),
		chat.WithCommandRate(0, 0), chat.WithConnectRate(0, 0),
	}
	if s.Backlog > 0 {
		opts = append(opts, chat.WithBacklog(s.Backlog), chat.WithContentLimit(s.Backlog/8))
	}
	if s.Heartbeat > 0 {
		opts = append(opts, chat.WithHeartbeat(s.Heartbeat))
	}
	service, err := chat.New(auth, opts...)
	if err != nil {
		return nil, err
	}
	return ours{service}, nil
}

func (o ours) ServeHTTP(w http.ResponseWriter, r *http.Request) { o.service.ServeHTTP(w, r) }

func (o ours) Sockets() int { return o.service.Stats().Sockets }

func (o ours) Publish(channel, content string) error {
	_, err := o.service.Broadcast(context.Background(), chat.Message{Channel: channel, Sender: peer.Sender, Content: content})
	return err
}

func (o ours) PublishTo(user, content string) error {
	return o.Publish(chat.UserChannel(user), content)
}

// SlowClosed returns how many sockets were closed because of their backlog.
func (o ours) SlowClosed() uint64 { return o.service.Stats().SlowClosed }
