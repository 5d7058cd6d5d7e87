// Command nhooyr serves sockets with github.com/coder/websocket, formerly nhooyr.
package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/reto10/chat/test/bench/peer"
)

func main() { peer.Main(newNhooyr, "nhooyr") }

const (
	queue    = 256
	patience = 5 * time.Second
)

// subscribers is the pattern of nhooyr's chat example, under the library's present import
// path: a queue per socket, which the handler's goroutine empties, and another goroutine
// that reads.
type subscribers struct {
	mu    sync.Mutex
	all   map[*subscriber]struct{}
	users map[string]*subscriber // nil: not needed
}

type subscriber struct {
	queue chan []byte
	slow  context.CancelFunc
}

func newNhooyr(_ string, settings peer.Settings) (peer.Peer, error) {
	s := &subscribers{all: make(map[*subscriber]struct{})}
	if settings.Direct {
		s.users = make(map[string]*subscriber)
	}
	return s, nil
}

func (s *subscribers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // answered by Accept
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	me := &subscriber{make(chan []byte, queue), cancel}
	user := peer.User(r)
	s.add(me, user)
	defer s.remove(me, user)
	go func() {
		defer cancel()
		for {
			_, command, err := conn.Read(ctx)
			if err != nil {
				return
			}
			b, err := peer.Answer(command)
			if err != nil {
				return
			}
			me.offer(b)
		}
	}()
	for {
		select {
		case b := <-me.queue:
			if err := write(ctx, conn, b); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *subscribers) add(one *subscriber, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[one] = struct{}{}
	if s.users != nil {
		s.users[user] = one
	}
}

func (s *subscribers) remove(one *subscriber, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, one)
	if s.users[user] == one {
		delete(s.users, user)
	}
}

// PublishTo queues a message for a user's socket.
func (s *subscribers) PublishTo(user, content string) error {
	b := peer.Event(content)
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.users[user]
	if one == nil {
		return fmt.Errorf("nhooyr: %s has no socket", user)
	}
	one.offer(b)
	return nil
}

func write(ctx context.Context, conn *websocket.Conn, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, b)
}

// offer queues b, or ends a socket whose queue is full.
func (s *subscriber) offer(b []byte) {
	select {
	case s.queue <- b:
	default:
		s.slow()
	}
}

func (s *subscribers) Sockets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

func (s *subscribers) Publish(_, content string) error {
	b := peer.Event(content)
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.all {
		one.offer(b)
	}
	return nil
}
