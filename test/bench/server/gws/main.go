// Command gws serves sockets with github.com/lxzan/gws.
package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/lxzan/gws"

	"github.com/reto10/chat/test/bench/peer"
)

func main() { peer.Main(newGWS, "gws") }

// silence is when a silent socket is closed. The example uses a minute and clients that
// ping; these clients do not.
const silence = 10 * time.Minute

// quick is gws with its Broadcaster: a frame is made once and queued to the writer of each
// connection.
type quick struct {
	gws.BuiltinEventHandler
	upgrader *gws.Upgrader

	mu    sync.RWMutex
	conns map[*gws.Conn]struct{}
	users map[string]*gws.Conn // nil: not needed
}

// user is the key of a connection's user in its session.
const user = "user"

func newGWS(_ string, s peer.Settings) (peer.Peer, error) {
	q := &quick{conns: make(map[*gws.Conn]struct{})}
	var options *gws.ServerOption
	if s.Direct {
		q.users = make(map[string]*gws.Conn)
		options = &gws.ServerOption{Authorize: func(r *http.Request, session gws.SessionStorage) bool {
			session.Store(user, peer.User(r))
			return true
		}}
	}
	q.upgrader = gws.NewUpgrader(q, options)
	return q, nil
}

func (q *quick) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := q.upgrader.Upgrade(w, r)
	if err != nil {
		return // answered by gws
	}
	go conn.ReadLoop() // so that the request's memory is free
}

func (q *quick) OnOpen(c *gws.Conn) {
	_ = c.SetDeadline(time.Now().Add(silence))
	q.mu.Lock()
	defer q.mu.Unlock()
	q.conns[c] = struct{}{}
	if q.users != nil {
		q.users[userOf(c)] = c
	}
}

func userOf(c *gws.Conn) string {
	name, _ := c.Session().Load(user)
	s, _ := name.(string)
	return s
}

func (q *quick) OnClose(c *gws.Conn, _ error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.conns, c)
	if q.users != nil && q.users[userOf(c)] == c {
		delete(q.users, userOf(c))
	}
}

// PublishTo writes to a user's connection.
func (q *quick) PublishTo(user, content string) error {
	q.mu.RLock()
	c := q.users[user]
	q.mu.RUnlock()
	if c == nil {
		return fmt.Errorf("gws: %s has no connection", user)
	}
	return c.WriteMessage(gws.OpcodeText, peer.Event(content))
}

func (q *quick) OnPing(c *gws.Conn, payload []byte) {
	_ = c.SetDeadline(time.Now().Add(silence))
	_ = c.WritePong(payload)
}

func (q *quick) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	if b, err := peer.Answer(m.Bytes()); err == nil {
		_ = c.WriteMessage(gws.OpcodeText, b)
	}
}

func (q *quick) Sockets() int {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return len(q.conns)
}

func (q *quick) Publish(_, content string) error {
	b := gws.NewBroadcaster(gws.OpcodeText, peer.Event(content))
	defer b.Close()
	q.mu.RLock()
	defer q.mu.RUnlock()
	for c := range q.conns {
		_ = b.Broadcast(c) // a failed one is on its way to OnClose
	}
	return nil
}
