// Command melody serves sockets with github.com/olahol/melody.
package main

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/olahol/melody"

	"github.com/reto10/chat/test/bench/peer"
)

func main() { peer.Main(newMelody, "melody") }

// melodious is melody as its README shows it.
type melodious struct {
	m *melody.Melody

	mu    sync.RWMutex
	users map[string]*melody.Session
}

func newMelody(_ string, s peer.Settings) (peer.Peer, error) {
	m := melody.New()
	p := &melodious{m: m}
	if s.Direct {
		p.users = make(map[string]*melody.Session)
		m.HandleConnect(func(s *melody.Session) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.users[peer.User(s.Request)] = s
		})
		m.HandleDisconnect(func(s *melody.Session) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if user := peer.User(s.Request); p.users[user] == s {
				delete(p.users, user)
			}
		})
	}
	m.HandleMessage(func(s *melody.Session, command []byte) {
		if b, err := peer.Answer(command); err == nil {
			_ = s.Write(b) // fails on a socket that is gone
		}
	})
	return p, nil
}

func (p *melodious) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = p.m.HandleRequest(w, r) // answered by melody
}

func (p *melodious) Sockets() int { return p.m.Len() }

func (p *melodious) Publish(_, content string) error { return p.m.Broadcast(peer.Event(content)) }

// PublishTo queues a message for a user's session.
func (p *melodious) PublishTo(user, content string) error {
	p.mu.RLock()
	s := p.users[user]
	p.mu.RUnlock()
	if s == nil {
		return fmt.Errorf("melody: %s has no session", user)
	}
	return s.Write(peer.Event(content))
}
