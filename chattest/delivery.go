package chattest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/pipenet"
)

// The extent of one run of TestDelivery.
const (
	deliveryClients    = 8   // users with one socket at a time
	deliverySteps      = 60  // of each client
	deliveryPublishers = 4   // besides the clients
	deliveryMessages   = 120 // of each publisher
	deliveryLate       = 40  // messages to each channel while the services shut down
)

// deliveryChannels are the channels that clients join and leave.
var deliveryChannels = []string{"a", "b", "c"}

// TestDelivery tests what clients are promised: each channel in order, each message once,
// every acknowledged message delivered, also across reconnects. It runs a [chat.Service]
// on each node that open returns, as for [TestRegistry]. Clients join, join again, leave,
// publish, hang up, vanish, resume and stop reading. Publishers never wait for clients.
// The test compares every frame that a socket receives with a model of the protocol. At
// the end the services shut down under traffic. Of several nodes, the last one shuts down
// halfway.
//
// One call is one run. The seed decides what each client and publisher does, but not when:
// call TestDelivery with several seeds. It starts no subtests and does not use the
// system's network, so it may run in a [testing/synctest] bubble.
func TestDelivery(t *testing.T, seed uint64, open func(t *testing.T) []Node) {
	d := newDelivery(t, seed, open(t))
	defer d.end()
	defer func() {
		if t.Failed() {
			t.Logf("the seed is %d", seed)
		}
	}()
	var acting sync.WaitGroup
	for i := range deliveryPublishers {
		rng := d.rng(1, i)
		acting.Go(func() { d.publish(rng) })
	}
	if len(d.hosts) > 1 {
		acting.Go(func() { d.shutdownHalfWay(d.hosts[len(d.hosts)-1]) })
	}
	clients := make([]*deliveryClient, deliveryClients)
	for i := range clients {
		c := newDeliveryClient(d, fmt.Sprint("user", i), d.rng(2, i))
		clients[i] = c
		acting.Go(c.act)
	}
	acting.Wait()
	if !t.Failed() {
		d.settle(clients)
	}
	if !t.Failed() {
		d.shutdownAll(clients)
	}
	for _, c := range clients {
		c.hangUp()
	}
	if !t.Failed() {
		d.compare()
	}
	t.Logf("%d messages published, %d received, %d commands answered, %d connections, of these %d closed as slow",
		len(d.acked), d.received.Load(), d.answered.Load(), d.connections.Load(), d.slow.Load())
}

// delivery is a run of TestDelivery.
type delivery struct {
	*testing.T
	seed  uint64
	hosts []*deliveryHost
	half  chan struct{} // closed when half of the messages are published

	received, answered, connections, slow atomic.Int64

	mu     sync.Mutex               // guards the fields below
	count  int                      // messages published by publishers
	acked  map[string]string        // contents by id, of messages that were acknowledged
	newest map[string]chat.Position // by channel, of these
	got    map[string]string        // contents by id, of messages that any socket received
}

// deliveryHost is a service on a node.
type deliveryHost struct {
	node     Node
	service  *chat.Service
	server   *http.Server
	listener *pipenet.Listener
	client   *http.Client
	served   chan struct{}
	down     atomic.Bool // Shutdown was called
}

func newDelivery(t *testing.T, seed uint64, nodes []Node) *delivery {
	t.Helper()
	d := &delivery{
		T: t, seed: seed, half: make(chan struct{}),
		acked: make(map[string]string), newest: make(map[string]chat.Position), got: make(map[string]string),
	}
	for _, node := range nodes {
		registry := &wrapped{Registry: node.Registry}
		opts := []chat.Option{
			chat.WithRegistry(registry), chat.WithPolicy(anything{}),
			chat.WithLogger(slog.New(slog.DiscardHandler)), chat.WithCommandRate(0, 0), chat.WithSocketsPerUser(1000),
			chat.WithContentLimit(1 << 10), chat.WithBacklog(32 << 10), chat.WithPresenceWindow(5 * time.Millisecond),
		}
		if node.History != nil {
			opts = append(opts, chat.WithHistory(node.History))
		}
		service, err := chat.New(anyToken{}, opts...)
		if err != nil {
			t.Fatal(err)
		}
		node.History = registry.history
		h := &deliveryHost{
			node: node, service: service, server: &http.Server{Handler: service},
			listener: pipenet.Listen(), served: make(chan struct{}),
		}
		h.client = &http.Client{Transport: &http.Transport{DialContext: h.listener.Dial}}
		go func() {
			defer close(h.served)
			_ = h.server.Serve(h.listener)
		}()
		d.hosts = append(d.hosts, h)
	}
	return d
}

// wrapped embeds a registry by the interface, as embedders do. It records the history that
// the service uses.
type wrapped struct {
	chat.Registry
	history chat.History
}

func (w *wrapped) Start(h chat.History, changed func(chat.PresenceChange)) (_ chat.History, err error) {
	w.history, err = w.Registry.Start(h, changed)
	return w.history, err
}

// end stops what newDelivery started.
func (d *delivery) end() {
	for _, h := range d.hosts {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = h.service.Shutdown(ctx) // again, unless the test failed
		cancel()
		h.client.CloseIdleConnections()
		_ = h.server.Close()
		<-h.served
	}
}

// anyToken is an authenticator. A token is a name and a role.
type anyToken struct{}

func (anyToken) Authenticate(_ context.Context, token string) (chat.Identity, error) {
	name, role, _ := strings.Cut(token, ".")
	return chat.Identity{User: chat.User{Name: name, Role: role}, Expires: time.Now().Add(time.Hour)}, nil
}

// anything is a policy by which every user may publish.
type anything struct{ chat.DefaultPolicy }

func (anything) Publish(context.Context, chat.Identity, string) error { return nil }

// rng returns the random numbers of one client or publisher.
func (d *delivery) rng(kind uint64, i int) *rand.Rand {
	return rand.New(rand.NewPCG(d.seed, kind<<32|uint64(i)))
}

// channelFor returns a channel to publish to.
func channelFor(rng *rand.Rand) string {
	switch n := rng.IntN(10); {
	case n < 2:
		return ""
	case n < 4:
		return chat.UserChannel(fmt.Sprint("user", rng.IntN(deliveryClients)))
	default:
		return deliveryChannels[n%len(deliveryChannels)]
	}
}

func content(rng *rand.Rand) string {
	return fmt.Sprint(rng.Uint64(), strings.Repeat("x", rng.IntN(300)))
}

// publish broadcasts from Go code, in bursts, on all nodes. A service that has shut down
// publishes too.
func (d *delivery) publish(rng *rand.Rand) {
	for left := deliveryMessages; left > 0 && !d.Failed(); {
		for range min(left, 1+rng.IntN(8)) {
			left--
			d.broadcast(d.hosts[rng.IntN(len(d.hosts))], channelFor(rng), content(rng))
		}
		pause(d.Context(), time.Duration(rng.IntN(3000))*time.Microsecond)
	}
}

func (d *delivery) broadcast(h *deliveryHost, channel, content string) chat.Position {
	m, err := h.service.Broadcast(d.Context(), chat.Message{Channel: channel, Sender: "eva", Content: content})
	if err != nil {
		d.Errorf("Broadcast: %v", err)
		return chat.Position{}
	}
	d.ack(m.ID(), channel, m.Position, content)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.count++; d.count == deliveryPublishers*deliveryMessages/2 {
		close(d.half)
	}
	return m.Position
}

// ack records that a message was acknowledged.
func (d *delivery) ack(id, channel string, p chat.Position, content string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, twice := d.acked[id]; twice {
		d.Errorf("two messages have the id %s: %.40q and %.40q", id, old, content)
	}
	d.acked[id] = content
	if n := d.newest[channel]; p.Epoch != n.Epoch || p.Seq > n.Seq {
		d.newest[channel] = p
	}
}

// receive records a message that a socket received.
func (d *delivery) receive(id, content string) error {
	d.received.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, known := d.got[id]; known && old != content {
		return fmt.Errorf("message %s is %.40q here and %.40q on another socket", id, content, old)
	}
	d.got[id] = content
	return nil
}

func (d *delivery) shutdownHalfWay(h *deliveryHost) {
	select {
	case <-d.half:
		d.shutdown(h)
	case <-d.Context().Done():
	case <-time.After(patience): // the test has failed
	}
}

func (d *delivery) shutdown(h *deliveryHost) {
	h.down.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	short, cancelShort := context.WithTimeout(ctx, 2*time.Second)
	defer cancelShort()
	if err := h.service.Shutdown(short); err != nil {
		d.Errorf("Shutdown: %v", err)
	}
}

// settle waits until each client has all messages of the channels that it is in.
func (d *delivery) settle(clients []*deliveryClient) {
	d.mu.Lock()
	want := maps.Clone(d.newest)
	d.mu.Unlock()
	for _, c := range clients {
		if c.connected() {
			c.askWhetherReplayed()
		}
		eventually(d.T, func() string {
			if !c.connected() && c.connect() { // perhaps closed because it was too slow
				c.askWhetherReplayed()
			}
			return c.missing(want)
		})
	}
}

// shutdownAll shuts down the services under traffic. Each socket must first receive what
// was acknowledged before on its node.
func (d *delivery) shutdownAll(clients []*deliveryClient) {
	before := make(map[*deliveryHost]map[string]chat.Position)
	channels := append([]string{""}, deliveryChannels...)
	for _, h := range d.hosts {
		before[h] = make(map[string]chat.Position)
		for _, channel := range channels {
			for range 3 {
				before[h][channel] = d.broadcast(h, channel, "before the end")
			}
		}
	}
	var acting sync.WaitGroup
	for _, h := range d.hosts {
		acting.Go(func() { d.shutdown(h) })
		acting.Go(func() {
			for range deliveryLate {
				for _, channel := range channels {
					d.broadcast(h, channel, "meanwhile")
				}
			}
		})
	}
	acting.Wait()
	for _, c := range clients {
		if !c.ended() {
			d.Errorf("%s is still connected after all services have shut down", c.name)
			continue
		}
		if c.conn.closed != int(chat.CloseGoingAway) {
			continue // it was too slow
		}
		if problem := c.missing(before[c.conn.host]); problem != "" {
			d.Errorf("closed with 1001, %s", problem)
		}
	}
}

// compare compares the acknowledged and the received messages with the history.
func (d *delivery) compare() {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := make(map[string]string)
	for channel := range d.newest {
		for p := (chat.Position{}); ; {
			page, err := d.hosts[0].node.History.After(context.Background(), channel, p, chat.Limit{Count: 500})
			if err != nil && !errors.Is(err, chat.ErrGone) {
				d.Errorf("After in %q: %v", channel, err)
			}
			if err != nil || len(page) == 0 {
				break
			}
			for _, m := range page {
				kept[m.ID()] = m.Content
			}
			p = page[len(page)-1].Position
		}
	}
	for what, list := range map[string]map[string]string{"acknowledged": d.acked, "received": d.got} {
		var wrong []string
		for id, content := range list {
			if stored, ok := kept[id]; !ok || stored != content {
				wrong = append(wrong, fmt.Sprintf("%s %.40q, stored %v %.40q", id, content, ok, stored))
			}
		}
		slices.Sort(wrong)
		if diff := cmp.Diff([]string(nil), wrong); diff != "" {
			d.Errorf("%s is not what the history has (-want +got):\n%s", what, diff)
		}
	}
}

// pause waits a while.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
