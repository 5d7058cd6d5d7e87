// Command melody serves sockets with github.com/olahol/melody.
package main

import (
	"net/http"

	"github.com/olahol/melody"

	"github.com/reto10/chat/test/bench/peer"
)

func main() { peer.Main(newMelody, "melody") }

// melodious is melody as its README shows it.
type melodious struct{ m *melody.Melody }

func newMelody(string, peer.Settings) (peer.Peer, error) {
	m := melody.New()
	m.HandleMessage(func(s *melody.Session, command []byte) {
		if b, err := peer.Answer(command); err == nil {
			_ = s.Write(b) // fails on a socket that is gone
		}
	})
	return melodious{m}, nil
}

func (p melodious) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = p.m.HandleRequest(w, r) // answered by melody
}

func (p melodious) Sockets() int { return p.m.Len() }

func (p melodious) Publish(_, content string) error { return p.m.Broadcast(peer.Event(content)) }
