package peer

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// The times and sizes of the chat example in gorilla's repository.
const (
	gorillaPatience = 10 * time.Second // for a write
	gorillaSilence  = 60 * time.Second // without a pong
	gorillaPing     = gorillaSilence * 9 / 10
	gorillaQueue    = 256 // messages that wait for a socket
	gorillaBuffer   = 1024
	gorillaLimit    = 512
)

// hub is the pattern of gorilla's chat example: one goroutine owns the set of
// sockets, each socket has a queue, a goroutine that reads and one that writes.
// A frame a message is prepared once for all; joined, as in the example, what
// waits for a socket goes out in one frame, a message a line, which a browser
// has to take apart.
type hub struct {
	joined   bool
	upgrader websocket.Upgrader
	enter    chan *guest
	leave    chan *guest
	send     chan parcel
	count    atomic.Int64
}

type parcel struct {
	prepared *websocket.PreparedMessage
	text     []byte
}

type guest struct {
	hub   *hub
	conn  *websocket.Conn
	queue chan parcel
}

func newGorilla(joined bool) Peer {
	h := &hub{
		joined: joined,
		upgrader: websocket.Upgrader{
			ReadBufferSize:  gorillaBuffer,
			WriteBufferSize: gorillaBuffer,
			WriteBufferPool: new(sync.Pool),
		},
		enter: make(chan *guest),
		leave: make(chan *guest),
		send:  make(chan parcel),
	}
	go h.run()
	return h
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
	g := &guest{h, conn, make(chan parcel, gorillaQueue)}
	h.enter <- g
	go g.write()
	go g.read()
}

func (h *hub) Sockets() int { return int(h.count.Load()) }

func (h *hub) Publish(_, content string) error {
	p := parcel{text: event(content)}
	if !h.joined {
		var err error
		if p.prepared, err = websocket.NewPreparedMessage(websocket.TextMessage, p.text); err != nil {
			return err
		}
	}
	h.send <- p
	return nil
}

func (g *guest) read() {
	defer func() {
		g.hub.leave <- g
		_ = g.conn.Close()
	}()
	alive := func(string) error { return g.conn.SetReadDeadline(time.Now().Add(gorillaSilence)) }
	g.conn.SetReadLimit(gorillaLimit)
	g.conn.SetPongHandler(alive)
	_ = alive("")
	for {
		_, command, err := g.conn.ReadMessage()
		if err != nil {
			return
		}
		b, err := answer(command)
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
	ping := time.NewTicker(gorillaPing)
	defer func() {
		ping.Stop()
		_ = g.conn.Close()
	}()
	for {
		var err error
		select {
		case p, open := <-g.queue:
			_ = g.conn.SetWriteDeadline(time.Now().Add(gorillaPatience))
			switch {
			case !open:
				_ = g.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			case g.hub.joined:
				err = g.writeJoined(p)
			default:
				err = g.conn.WritePreparedMessage(p.prepared)
			}
		case <-ping.C:
			_ = g.conn.SetWriteDeadline(time.Now().Add(gorillaPatience))
			err = g.conn.WriteMessage(websocket.PingMessage, nil)
		}
		if err != nil {
			return
		}
	}
}

// writeJoined writes a message and all that waits behind it as the lines of one.
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
