package chattest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/internal/wsdial"
)

// deliveryClient is a user with one socket at a time. It remembers its positions across
// sockets. One goroutine at a time calls its methods.
type deliveryClient struct {
	*delivery
	name   string
	rng    *rand.Rand
	conn   *deliveryConn              // nil before the first
	known  map[string][]chat.Position // by channel, the positions so far, oldest first
	wanted []string                   // channels to join on the next connection
	refs   int
}

func newDeliveryClient(d *delivery, name string, rng *rand.Rand) *deliveryClient {
	return &deliveryClient{delivery: d, name: name, rng: rng, known: make(map[string][]chat.Position)}
}

// act does the client's steps one after the other. It leaves the last connection open.
func (c *deliveryClient) act() {
	for step := 0; step < deliverySteps && !c.Failed(); step++ {
		if !c.connected() && !c.connect() {
			return
		}
		switch n := c.rng.IntN(100); {
		case n < 16:
			c.ask(&asked{typ: wire.TypeJoin, channel: c.anyChannel()})
		case n < 42:
			channel := c.anyChannel()
			c.ask(&asked{typ: wire.TypeJoin, channel: channel, since: c.anyID(channel)})
		case n < 58:
			c.ask(&asked{typ: wire.TypeLeave, channel: deliveryChannels[c.rng.IntN(len(deliveryChannels))]})
		case n < 70:
			c.ask(&asked{typ: wire.TypeBroadcast, channel: channelFor(c.rng), content: content(c.rng)})
		case n < 74:
			c.ask(&asked{typ: wire.TypeRefresh})
		case n < 86:
			pause(c.Context(), time.Duration(c.rng.IntN(3000))*time.Microsecond)
		case n < 91:
			c.conn.readNothing(time.Duration(c.rng.IntN(30)) * time.Millisecond)
		case n < 96:
			c.hangUp()
		default:
			c.conn.client.Cut()
			c.finish()
		}
	}
}

// anyChannel returns a channel to join, sometimes the user channel.
func (c *deliveryClient) anyChannel() string {
	if c.rng.IntN(6) == 0 {
		return chat.UserChannel(c.name)
	}
	return deliveryChannels[c.rng.IntN(len(deliveryChannels))]
}

// anyID returns an id to resume a channel from: the last one received, an older one, one of
// the newest that are stored, whether delivered or not, or an invalid one.
func (c *deliveryClient) anyID(channel string) *given {
	known := c.positions(channel)
	stored, err := c.hosts[0].node.History.Last(c.Context(), channel)
	if err != nil {
		c.Errorf("Last of %q: %v", channel, err)
	}
	at := func(p chat.Position) *given { return &given{chat.FormatID(channel, p), p, true} }
	switch n := c.rng.IntN(20); {
	case n < 6 && len(known) > 0:
		return at(known[len(known)-1])
	case n < 11 && len(known) > 0:
		return at(known[c.rng.IntN(len(known))])
	case n < 17:
		stored.Seq -= min(stored.Seq, c.rng.Uint64N(4))
		return at(stored)
	case n < 18:
		// A position of the epoch that no message will have.
		far := chat.Position{Epoch: stored.Epoch, Seq: stored.Seq + 1<<40}
		return &given{id: chat.FormatID(channel, far), position: far}
	}
	none := []string{"garbage", chat.FormatID(channel, chat.Position{Epoch: "0therepoch", Seq: 7}), chat.FormatID("elsewhere", stored)}
	return &given{id: none[c.rng.IntN(len(none))]}
}

// positions returns the client's positions in a channel.
func (c *deliveryClient) positions(channel string) []chat.Position {
	if c.conn != nil {
		c.conn.mu.Lock()
		defer c.conn.mu.Unlock()
	}
	return slices.Clone(c.known[channel])
}

// ask sends a command.
func (c *deliveryClient) ask(a *asked) {
	c.refs++
	a.ref = fmt.Sprint(c.refs)
	cmd := wire.Command{Type: a.typ, Ref: wire.Ref(a.ref)}
	if a.typ != wire.TypeRefresh && a.channel != "" {
		cmd.Channel = &a.channel
	}
	if a.since != nil {
		cmd.Since, a.replayed = &a.since.id, a.since.position
	}
	switch a.typ {
	case wire.TypeBroadcast:
		cmd.Content = &a.content
	case wire.TypeRefresh:
		token := c.name + "." + []string{chat.RoleUser, chat.RoleAdmin}[c.rng.IntN(2)]
		cmd.Token = &token
	}
	text := wire.MarshalCommand(cmd)
	k := c.conn
	k.mu.Lock()
	k.model.pending = append(k.model.pending, a)
	k.model.note("→ %s", text)
	k.mu.Unlock()
	_ = k.client.Write(context.Background(), text) // an error is the connection's end
}

// askWhetherReplayed sends a command whose answer comes after the replay.
func (c *deliveryClient) askWhetherReplayed() {
	c.ask(&asked{typ: wire.TypeJoin, channel: chat.UserChannel(c.name)})
}

// connect opens a socket on a node that accepts it, with some of the channels and ids of
// the one before. It reports false if no node accepts it.
func (c *deliveryClient) connect() bool {
	c.finish()
	query := url.Values{}
	channels := slices.Clone(c.wanted)
	if c.rng.IntN(4) == 0 {
		channels = slices.DeleteFunc(slices.Clone(deliveryChannels), func(string) bool { return c.rng.IntN(2) == 0 })
	}
	query["channel"] = channels
	since := make(map[string]given)
	for _, channel := range append([]string{"", chat.UserChannel(c.name)}, channels...) {
		if c.rng.IntN(4) == 0 {
			continue
		}
		g := c.anyID(channel)
		query.Add("since", g.id)
		since[channel] = *g
	}
	var last error
	for range 100 {
		h := c.hosts[c.rng.IntN(len(c.hosts))]
		k, err := c.dial(h, query)
		if err == nil {
			k.model.note("connected with %v", query)
			err = k.begin(channels, since)
			if err == nil {
				c.conn = k
				return true
			}
			k.client.Cut()
			if !h.down.Load() {
				c.Errorf("%s: %v\n\t%s", c.name, err, k.model.report())
				return false
			}
		}
		// A node that shuts down accepts no socket; the other node does.
		if !h.down.Load() {
			c.Errorf("%s: connecting: %v", c.name, err)
			return false
		}
		last = err
	}
	c.Errorf("%s is accepted by no node: %v", c.name, last)
	return false
}

func (c *deliveryClient) dial(h *deliveryHost, query url.Values) (*deliveryConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dialer := &wsdial.Dialer{HTTP: h.client, Subprotocol: "chat.v1", ReadLimit: 1 << 20}
	header := http.Header{"Authorization": {"Bearer " + c.name + "." + chat.RoleUser}}
	client, err := dialer.Dial(ctx, "http://node/ws/chat?"+query.Encode(), header)
	if err != nil {
		return nil, err
	}
	c.connections.Add(1)
	return &deliveryConn{
		of: c, host: h, client: client, done: make(chan struct{}),
		model: deliveryModel{own: chat.UserChannel(c.name)},
	}, nil
}

func (c *deliveryClient) connected() bool { return c.conn != nil && !c.conn.over() }

// hangUp closes the connection with a close frame.
func (c *deliveryClient) hangUp() {
	if c.conn != nil {
		c.conn.client.Close(1000, "")
		c.finish()
	}
}

// finish cuts the connection, waits until its reader has ended, and remembers which
// channels the socket was in.
func (c *deliveryClient) finish() {
	if c.conn == nil {
		return
	}
	c.conn.client.Cut()
	<-c.conn.done
	c.wanted = nil
	for _, channel := range deliveryChannels {
		if c.conn.model.in[channel] != nil {
			c.wanted = append(c.wanted, channel)
		}
	}
}

// ended reports whether the server closed the connection within patience.
func (c *deliveryClient) ended() bool {
	select {
	case <-c.conn.done:
		return true
	case <-time.After(patience):
		return false
	}
}

// missing describes which messages the socket has not received of its channels.
func (c *deliveryClient) missing(want map[string]chat.Position) string {
	k := c.conn
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.model.pending); n > 0 && !k.over() {
		return fmt.Sprintf("%s: %d commands have no answer", c.name, n)
	}
	for _, channel := range slices.Sorted(maps.Keys(want)) {
		if s := k.model.in[channel]; s != nil && s.at.Epoch == want[channel].Epoch && s.at.Seq < want[channel].Seq {
			return fmt.Sprintf("%s has %q up to %v, not %v\n\t%s", c.name, channel, s.at, want[channel], k.model.report())
		}
	}
	return ""
}

// deliveryConn is one connection of a client. It has a goroutine that reads.
type deliveryConn struct {
	of     *deliveryClient
	host   *deliveryHost
	client *wsdial.Client
	done   chan struct{} // closed when the reader has ended
	closed int           // the close code, valid after done is closed

	mu     sync.Mutex // guards the fields below, and of.known during this connection
	model  deliveryModel
	paused chan struct{} // not nil while paused; closed to continue reading
}

func (k *deliveryConn) over() bool {
	select {
	case <-k.done:
		return true
	default:
		return false
	}
}

// begin reads the welcome and starts the goroutine that reads the rest.
func (k *deliveryConn) begin(channels []string, since map[string]given) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	text, err := k.client.Read(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the welcome: %w", err)
	}
	k.model.note("← %s", text)
	event, err := wire.ParseEvent(text)
	if err != nil {
		return err
	}
	w, ok := event.(wire.Welcome)
	if !ok {
		return fmt.Errorf("the first event is %s, not a welcome", text)
	}
	if err := k.model.welcome(w, channels, since); err != nil {
		return err
	}
	for channel, s := range k.model.in {
		k.remember(channel, s.at)
	}
	go k.read()
	return nil
}

// readNothing stops reading for a while.
func (k *deliveryConn) readNothing(d time.Duration) {
	resume := make(chan struct{})
	k.mu.Lock()
	k.paused = resume
	k.mu.Unlock()
	pause(k.of.Context(), d)
	k.mu.Lock()
	k.paused = nil
	k.mu.Unlock()
	close(resume)
}

// read checks the frames until the connection ends.
func (k *deliveryConn) read() {
	defer close(k.done)
	for {
		k.mu.Lock()
		paused := k.paused
		k.mu.Unlock()
		if paused != nil {
			<-paused
		}
		text, err := k.client.Read(context.Background())
		k.mu.Lock()
		if err != nil {
			k.ends(err)
		} else if err = k.take(text); err != nil {
			k.of.Errorf("%s: %v\n\t%s", k.of.name, err, k.model.report())
		}
		k.mu.Unlock()
		if err != nil {
			k.client.Cut()
			return
		}
	}
}

// ends checks why the connection ended. Only a client that reads too slowly or a service
// that shuts down may end it. The caller holds mu.
func (k *deliveryConn) ends(err error) {
	closed, ok := errors.AsType[*wsdial.CloseError](err)
	if !ok {
		return // the client closed it, or a broken pipe after a close frame
	}
	k.closed = closed.Code
	k.model.note("closed: %v", closed)
	switch {
	case closed.Code == int(chat.CloseTooSlow):
		k.of.slow.Add(1)
	case closed.Code == int(chat.CloseGoingAway) && k.host.down.Load(), closed.Code == 1000:
	default:
		k.of.Errorf("%s: %v\n\t%s", k.of.name, closed, k.model.report())
	}
}

// take checks one frame. The caller holds mu.
func (k *deliveryConn) take(text []byte) error {
	k.model.note("← %.100s", text)
	event, err := wire.ParseEvent(text)
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case wire.Message:
		p, err := k.model.message(e)
		if err != nil {
			return err
		}
		k.remember(e.Channel, p)
		return k.of.receive(e.ID, e.Content)
	case wire.Ack:
		a, err := k.model.ack(e)
		if err != nil {
			return err
		}
		k.of.answered.Add(1)
		switch a.typ {
		case wire.TypeBroadcast:
			channel, p, err := chat.ParseID(e.ID)
			if err != nil || channel != a.channel {
				return fmt.Errorf("broadcast to %q is %s (%v)", a.channel, e.ID, err)
			}
			k.of.ack(e.ID, channel, p, a.content)
		case wire.TypeJoin:
			k.remember(a.channel, k.model.in[a.channel].at)
		}
	case wire.Error:
		k.of.answered.Add(1)
		return k.model.refused(e)
	case wire.Presence:
	default:
		return fmt.Errorf("unexpected %s", text)
	}
	return nil
}

// remember records the client's position in a channel. The caller holds mu.
func (k *deliveryConn) remember(channel string, p chat.Position) {
	k.of.known[channel] = append(k.of.known[channel], p)
}
