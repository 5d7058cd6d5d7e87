// Package chatpeer is this library as the programs of several kinds of servers serve it.
package chatpeer

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/bench/peer"
)

// Peer is this library as an embedder uses it, with its defaults except for limits that no
// peer has.
type Peer struct{ service *chat.Service }

// New makes a service with further options.
func New(s peer.Settings, further ...chat.Option) (*Peer, error) {
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
	service, err := chat.New(auth, append(opts, further...)...)
	if err != nil {
		return nil, err
	}
	return &Peer{service}, nil
}

func (p *Peer) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.service.ServeHTTP(w, r) }

// Sockets returns how many are connected.
func (p *Peer) Sockets() int { return p.service.Stats().Sockets }

// Publish broadcasts a message.
func (p *Peer) Publish(channel, content string) error {
	_, err := p.service.Broadcast(context.Background(), chat.Message{Channel: channel, Sender: peer.Sender, Content: content})
	return err
}

// PublishTo broadcasts a message in a user channel.
func (p *Peer) PublishTo(user, content string) error {
	return p.Publish(chat.UserChannel(user), content)
}

// SlowClosed returns how many sockets were closed because of their backlog.
func (p *Peer) SlowClosed() uint64 { return p.service.Stats().SlowClosed }
