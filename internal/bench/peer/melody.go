package peer

import (
	"net/http"

	"github.com/olahol/melody"
)

// melodious is melody as its README shows it.
type melodious struct{ m *melody.Melody }

func newMelody() Peer {
	m := melody.New()
	m.HandleMessage(func(s *melody.Session, command []byte) {
		if b, err := answer(command); err == nil {
			_ = s.Write(b) // fails on a socket that is gone
		}
	})
	return melodious{m}
}

func (p melodious) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = p.m.HandleRequest(w, r) // answered by melody
}

func (p melodious) Sockets() int { return p.m.Len() }

func (p melodious) Publish(_, content string) error { return p.m.Broadcast(event(content)) }
