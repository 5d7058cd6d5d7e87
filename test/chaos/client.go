package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/reto10/chat"
)

const (
	handshakeWithin = 20 * time.Second
	welcomeWithin   = 30 * time.Second
	// silence is how long a client receives nothing, not even a heartbeat, before it takes the
	// connection for dead.
	silence = 75 * time.Second
	// pongWithin bounds how long writing a pong takes.
	pongWithin = 20 * time.Second
	// settled is how long a socket must be open before its end needs a reason. The server may
	// reject a socket that is opening, also while it reads the replay from a history that
	// does not answer.
	settled = 20 * time.Second
	// The pauses between attempts to connect: short first, and with jitter.
	firstPause = 200 * time.Millisecond
	mostPause  = 3 * time.Second
)

// event is any event of a server.
type event struct {
	Type      string          `json:"type"`
	ID        string          `json:"id"`
	Channel   string          `json:"channel"`
	Content   string          `json:"content"`
	Ref       string          `json:"ref"`
	Code      string          `json:"code"`
	Message   string          `json:"message"`
	Since     json.RawMessage `json:"since"`
	Recovered *bool           `json:"recovered"`
	Username  string          `json:"username"`
}

// client always reconnects. It is in everyone's channel, the user channel and some more,
// and resumes each from the last id it received.
type client struct {
	cluster  *cluster
	report   *report
	ledger   *ledger
	user     chat.User
	expires  bool     // while things break, its tokens end soon
	channels []string // beside everyone's and its own
	fronted  bool     // it connects through the proxy in front of a node
	pinned   *node    // the only node it connects to; nil: any
	rng      *rand.Rand

	// hear receives every event but messages, and an empty one when a socket ended.
	hear func(event) // or nil

	mu      sync.Mutex // guards what follows
	cursors map[string]*cursor
	conn    *websocket.Conn // nil: not connected
	node    *node           // it is connected to

	writing sync.Mutex // held while a command is written
}

// follow connects again and again until ctx ends, then leaves. It returns when the
// last socket has ended.
func (c *client) follow(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		if c.session(ctx) {
			pause = firstPause
		}
		wait := time.NewTimer(time.Duration(c.rng.Int64N(int64(pause))) + pause/4)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
		pause = min(2*pause, mostPause)
	}
}

// session runs one connection from its handshake to its end. It reports whether the
// client received a welcome.
func (c *client) session(ctx context.Context) (welcomed bool) {
	n := c.pinned
	if n == nil {
		n = c.cluster.nodes[c.rng.IntN(len(c.cluster.nodes))]
	}
	conn, resumed, err := c.dial(ctx, n)
	if err != nil {
		if ctx.Err() == nil {
			c.report.tally("handshakes that failed")
		}
		return false
	}
	defer conn.Close()
	opened := time.Now()
	defer leaving(ctx, conn)()

	_ = conn.SetReadDeadline(time.Now().Add(welcomeWithin))
	err = c.welcome(conn, resumed)
	if err == nil {
		welcomed = true
		c.attach(conn, n)
		err = c.read(ctx, conn)
		c.attach(nil, nil)
		if c.hear != nil {
			c.hear(event{})
		}
	}
	if ctx.Err() == nil {
		c.closed(n, err, welcomed, time.Since(opened))
	}
	return welcomed
}

// leaving closes the connection when ctx ends. The returned function undoes it.
func leaving(ctx context.Context, conn *websocket.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	})
}

// dial opens a socket that resumes where the last one ended.
func (c *client) dial(ctx context.Context, n *node) (conn *websocket.Conn, resumed []string, err error) {
	address := n.address
	if c.fronted {
		address = n.front.address
	}
	select {
	case c.cluster.dialling <- struct{}{}:
		defer func() { <-c.cluster.dialling }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	soon := c.expires && c.cluster.turbulent.Load()
	expires := c.cluster.expires
	if soon {
		expires = n.now().Add(shortLife)
	}
	conn, resumed, err = c.dialWith(ctx, address, c.cluster.tokens.token(c.user, expires))
	if refused, ok := errors.AsType[*refusal](err); ok {
		late := refused.status == http.StatusUnauthorized && soon // on a slow line
		if refused.status != http.StatusServiceUnavailable && !late {
			c.report.find(findProtocol, "%s was refused by %s: %d", c.user.Name, n.name, refused.status)
		}
	}
	return conn, resumed, err
}

// dialWith opens a socket that resumes where the last one ended. If the server answers
// with an error, it returns a [refusal].
func (c *client) dialWith(ctx context.Context, address, token string) (conn *websocket.Conn, resumed []string, err error) {
	query := url.Values{"channel": c.channels}
	c.mu.Lock()
	for _, channel := range slices.Sorted(maps.Keys(c.cursors)) {
		resumed = append(resumed, chat.FormatID(channel, c.cursors[channel].at))
	}
	c.mu.Unlock()
	query["since"] = resumed
	dialer := websocket.Dialer{
		HandshakeTimeout: handshakeWithin,
		ReadBufferSize:   1024,
		WriteBufferSize:  512,
		WriteBufferPool:  &c.cluster.buffers,
		Subprotocols:     []string{"chat.v1"},
	}
	header := http.Header{"Authorization": {"Bearer " + token}}
	conn, resp, err := dialer.DialContext(ctx, "ws://"+address+"/ws/chat?"+query.Encode(), header)
	if err != nil && resp != nil {
		resp.Body.Close()
		err = refusedBy(resp, err)
	}
	return conn, resumed, err
}

// welcome handles the first event, which has the positions where the socket starts.
func (c *client) welcome(conn *websocket.Conn, resumed []string) error {
	e, err := readEvent(conn)
	if err != nil {
		return err
	}
	var since []string
	if err := json.Unmarshal(e.Since, &since); err != nil || e.Type != "welcome" {
		c.report.find(findProtocol, "%s was welcomed with %+v", c.user.Name, e)
		return errors.New("no welcome")
	}
	first := len(resumed) == 0
	forgotten := !first && (e.Recovered == nil || !*e.Recovered)
	moved := false
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range since {
		channel, pos, err := chat.ParseID(id)
		if err != nil {
			c.report.find(findProtocol, "%s was welcomed with the id %q", c.user.Name, id)
			continue
		}
		at := c.cursors[channel]
		c.ledger.sighted(channel, pos)
		switch {
		case at == nil:
			if !first {
				c.report.find(findProtocol, "%s was welcomed in %q, which it never joined", c.user.Name, channel)
			}
			at = new(cursor)
			c.cursors[channel] = at
			at.begin(pos)
		case at.at == pos: // all messages follow
		case forgotten:
			moved = true
			before := at.at
			at.begin(pos)
			if finding, why := c.ledger.rebased(channel, before, pos); finding != "" {
				c.report.find(finding, "%s resumed from %s and was told to continue from %s after a loss: %s",
					c.user.Name, chat.FormatID(channel, before), id, why)
			}
		default:
			c.report.find(findProtocol, "%s resumed after %s and got %s",
				c.user.Name, chat.FormatID(channel, at.at), id)
		}
	}
	if forgotten && !moved {
		c.report.find(findForgotten, "%s resumed from %v and got a report of a loss, but all messages follow", c.user.Name, resumed)
	}
	if len(c.cursors) != 2+len(c.channels) {
		c.report.find(findProtocol, "%s starts in %d channels, not %d", c.user.Name, len(c.cursors), 2+len(c.channels))
	}
	return nil
}

func (c *client) read(ctx context.Context, conn *websocket.Conn) error {
	return c.readWith(ctx, conn, func() {})
}

// readWith reads until the socket ends, and calls fn after each message.
func (c *client) readWith(ctx context.Context, conn *websocket.Conn, fn func()) error {
	alive := func(string) error {
		if ctx.Err() != nil {
			return nil // the deadline is that of leaving
		}
		return conn.SetReadDeadline(time.Now().Add(silence))
	}
	conn.SetPongHandler(alive)
	conn.SetPingHandler(func(text string) error {
		if err := alive(text); err != nil {
			return err
		}
		// The default handler drops a pong that it cannot write within a second, as on a
		// busy machine. The server then takes the client for dead.
		err := conn.WriteControl(websocket.PongMessage, []byte(text), time.Now().Add(pongWithin))
		if err == websocket.ErrCloseSent {
			return nil
		}
		return err
	})
	for {
		if err := alive(""); err != nil {
			return err
		}
		e, err := readEvent(conn)
		if err != nil {
			return err
		}
		switch {
		case e.Type == "message":
			c.message(e)
			fn()
		case c.hear != nil:
			c.hear(e)
		case e.Type == "error":
			c.report.find(findProtocol, "%s got the error %s without a command: %s", c.user.Name, e.Code, e.Message)
		}
	}
}

func (c *client) message(e event) {
	channel, pos, err := chat.ParseID(e.ID)
	if err != nil || channel != e.Channel {
		c.report.find(findProtocol, "a message in %q has the id %q", e.Channel, e.ID)
		return
	}
	c.report.messages.Add(1)
	c.ledger.delivered(channel, pos, e.Content)
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.cursors[channel]
	if at == nil {
		c.report.find(findForged, "%s got %s and is not in that channel", c.user.Name, e.ID)
		return
	}
	before := at.at
	if finding := at.next(pos); finding != "" {
		c.report.find(finding, "%s got %s after %s", c.user.Name, e.ID, chat.FormatID(channel, before))
	}
}

// closeOf returns the close code of a socket that ended, and the reason.
func closeOf(err error) (code int, reason string) {
	if closing := new(websocket.CloseError); errors.As(err, &closing) {
		return closing.Code, fmt.Sprintf("%d %s", closing.Code, closing.Text)
	}
	return websocket.CloseAbnormalClosure, err.Error()
}

// closed checks why a socket ended.
func (c *client) closed(n *node, err error, welcomed bool, age time.Duration) {
	code, reason := closeOf(err)
	c.report.tally(fmt.Sprintf("sockets that ended with %d", code))
	switch code {
	case int(chat.CloseTokenExpired):
		if !c.expires {
			c.report.find(findClosed, "%s: %s, but its token is valid", c.user.Name, reason)
		}
		return
	case int(chat.CloseTooSlow):
		if c.ledger.losses.recently(noticeWithin) {
			return // messages for it are gone: the next welcome says so
		}
	case websocket.CloseAbnormalClosure, int(chat.CloseGoingAway):
	default:
		c.report.find(findClosed, "%s: %s", c.user.Name, reason)
		return
	}
	if welcomed && age > settled && !n.disturbed() && (!c.fronted || !n.front.disturbed()) {
		c.report.find(findClosed, "%s: closed by %s after %v, which was not touched: %s",
			c.user.Name, n.name, age.Round(time.Millisecond), reason)
	}
}

func (c *client) attach(conn *websocket.Conn, n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.node = conn, n
}

// connected is the node that the client is connected to, or nil.
func (c *client) connected() *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.node
}

// behind returns the channels in which the client lacks acknowledged messages or, if any is
// true, messages that other clients received, with what is missing. silent counts the
// channels whose epoch has ended: the client waits for messages that will not come.
func (c *client) behind(any bool) (missing []string, silent int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for channel, at := range c.cursors {
		last, lacks := c.ledger.lacks(channel, at.at, any)
		if !lacks {
			continue
		}
		missing = append(missing, fmt.Sprintf("%s is at %s and not at %s", c.user.Name,
			chat.FormatID(channel, at.at), chat.FormatID(channel, last)))
		if at.at.Epoch != last.Epoch {
			silent++
		}
	}
	return missing, silent
}

// send writes a command to the present socket.
func (c *client) send(command any) error {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return errors.New("not connected")
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	return conn.WriteJSON(command)
}

func readEvent(conn *websocket.Conn) (event, error) {
	var e event
	_, b, err := conn.ReadMessage()
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("reading %.100q: %w", b, err)
	}
	return e, nil
}
