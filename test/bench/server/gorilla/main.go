// Command gorilla serves sockets with github.com/gorilla/websocket, with one frame per message
// or with joined messages.
package main

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/reto10/chat/test/bench/peer"
)

// joined is the kind that joins a socket's waiting messages into one frame.
const joined = "gorilla-joined"

func main() { peer.Main(newGorilla, "gorilla", joined) }

// The times and sizes of the chat example in gorilla's repository.
const (
	patience = 10 * time.Second // for a write
	silence  = 60 * time.Second // without a pong
	ping     = silence * 9 / 10
	queue    = 256 // messages that wait for a socket
	buffer   = 1024
	limit    = 512
)

// hub is the pattern of gorilla's chat example: one goroutine owns the set of sockets, and
// each socket has a queue, a goroutine that reads and one that writes. With a frame per
// message, the frame is prepared once for all sockets. With joined, as in the example, a
// socket's waiting messages go out in one frame, one per line, which a browser must split.
type hub struct {
	joined   bool
	upgrader websocket.Upgrader
	enter    chan *guest
	leave    chan *guest
	send     chan parcel
	count    atomic.Int64

	mu    sync.RWMutex
	users map[string]*guest // nil: not needed
}

type parcel struct {
	prepared *websocket.PreparedMessage
	text     []byte
}

type guest struct {
	hub   *hub
	user  string
	conn  *websocket.Conn
	queue chan parcel
}

func newGorilla(kind string, s peer.Settings) (peer.Peer, error) {
	h := &hub{
		joined: kind == joined,
		upgrader: websocket.Upgrader{
			ReadBufferSize:  buffer,
			WriteBufferSize: buffer,
			WriteBufferPool: new(sync.Pool),
		},
		enter: make(chan *guest),
		leave: make(chan *guest),
		send:  make(chan parcel),
	}
	if s.Direct {
		h.users = make(map[string]*guest)
	}
	go h.run()
	return h, nil
}

func (h *hub) run() {
	guests := make(map[*guest]bool)
	drop := func(g *guest) {
		if guests[g] {
			delete(guests, g)
			close(g.queue)
		}
	}
	for {
		select {
		case g := <-h.enter:
			guests[g] = true
		case g := <-h.leave:
			drop(g)
		case p := <-h.send:
			for g := range guests {
				select {
				case g.queue <- p:
				default:
					drop(g)
				}
			}
		}
		h.count.Store(int64(len(guests)))
	}
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // answered by gorilla
	}
	g := &guest{h, peer.User(r), conn, make(chan parcel, queue)}
	h.enter <- g
	h.name(g)
	go g.write()
	go g.read()
}

func (h *hub) Sockets() int { return int(h.count.Load()) }

func (h *hub) Publish(_, content string) error {
	p := parcel{text: peer.Event(content)}
	if !h.joined {
		var err error
		if p.prepared, err = websocket.NewPreparedMessage(websocket.TextMessage, p.text); err != nil {
			return err
		}
	}
	h.send <- p
	return nil
}

// name lets PublishTo find a guest.
func (h *hub) name(g *guest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users != nil {
		h.users[g.user] = g
	}
}

func (h *hub) forget(g *guest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[g.user] == g {
		delete(h.users, g.user)
	}
}

// PublishTo queues a message for a user's connection, whose goroutine writes it. Nothing is
// prepared: that is for a message to several.
func (h *hub) PublishTo(user, content string) error {
	h.mu.RLock()
	g := h.users[user]
	h.mu.RUnlock()
	if g == nil || !g.offer(parcel{text: peer.Event(content)}) {
		return fmt.Errorf("gorilla: %s has no connection, or its queue is full", user)
	}
	return nil
}

func (g *guest) read() {
	defer func() {
		g.hub.forget(g)
		g.hub.leave <- g
		_ = g.conn.Close()
	}()
	alive := func(string) error { return g.conn.SetReadDeadline(time.Now().Add(silence)) }
	g.conn.SetReadLimit(limit)
	g.conn.SetPongHandler(alive)
	_ = alive("")
	for {
		_, command, err := g.conn.ReadMessage()
		if err != nil {
			return
		}
		b, err := peer.Answer(command)
		if err != nil {
			return
		}
		// Through the queue: a connection has one writer.
		p := parcel{text: b}
		if !g.hub.joined {
			if p.prepared, err = websocket.NewPreparedMessage(websocket.TextMessage, b); err != nil {
				return
			}
		}
		if !g.offer(p) {
			return
		}
	}
}

// offer queues an answer; false says that the hub closed the queue, or it is full.
func (g *guest) offer(p parcel) (ok bool) {
	defer func() {
		if recover() != nil { // the hub closed the queue meanwhile
			ok = false
		}
	}()
	select {
	case g.queue <- p:
		return true
	default:
		return false
	}
}

func (g *guest) write() {
	pings := time.NewTicker(ping)
	defer func() {
		pings.Stop()
		_ = g.conn.Close()
	}()
	for {
		var err error
		select {
		case p, open := <-g.queue:
			_ = g.conn.SetWriteDeadline(time.Now().Add(patience))
			switch {
			case !open:
				_ = g.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			case g.hub.joined:
				err = g.writeJoined(p)
			case p.prepared == nil:
				err = g.conn.WriteMessage(websocket.TextMessage, p.text)
			default:
				err = g.conn.WritePreparedMessage(p.prepared)
			}
		case <-pings.C:
			_ = g.conn.SetWriteDeadline(time.Now().Add(patience))
			err = g.conn.WriteMessage(websocket.PingMessage, nil)
		}
		if err != nil {
			return
		}
	}
}

// writeJoined writes a message and all that wait after it, one per line.
func (g *guest) writeJoined(p parcel) error {
	w, err := g.conn.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	_, _ = w.Write(p.text) // what fails here fails again in Close
	for range len(g.queue) {
		next, open := <-g.queue
		if !open {
			break
		}
		_, _ = w.Write([]byte{'\n'})
		_, _ = w.Write(next.text)
	}
	return w.Close()
}
