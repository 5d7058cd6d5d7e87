package chat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/wstest"
)

// directory is a login of one's own, as by LDAP or a table of users: it says
// whether a pair is right, and the tokens are those of an HS256.
type directory struct {
	*chat.HS256
	passwords map[string]string
}

// Login implements chat.LoginProvider.
func (d directory) Login(_ context.Context, username, password string) (chat.Token, error) {
	if right, ok := d.passwords[username]; !ok || password != right { // a real one compares hashes
		return chat.Token{}, chat.ErrUnauthenticated
	}
	return d.Issue(chat.User{Name: username})
}

// A LoginProvider of one's own embeds an Authenticator and hands out its tokens;
// the service then has a /login, with its bounds on wrong tries.
func ExampleLoginProvider() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(directory{signer, map[string]string{"ana": "open sesame"}}))
	server := httptest.NewServer(service)
	defer stop(service, server)

	for _, password := range []string{"open sesame", "open barley"} {
		answer := must(http.PostForm(server.URL+"/login", url.Values{"username": {"ana"}, "password": {password}}))
		answer.Body.Close()
		fmt.Println(answer.Status)
	}
	// Output:
	// 200 OK
	// 401 Unauthorized
}

// audited is a History that also notes each message in an audit log.
type audited struct {
	chat.History
	note func(chat.Message)
}

// Append notes what was stored. The embedded History does the rest.
func (h audited) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	stored, err := h.History.Append(ctx, msgs...)
	for _, m := range stored {
		h.note(m)
	}
	return stored, err
}

// A History of one's own usually stands on another one.
func ExampleHistory() {
	history := audited{chat.NewMemoryHistory(chat.MemoryLimits{Count: 10}), func(m chat.Message) {
		fmt.Printf("audit: %s published message %d of %q\n", m.Sender, m.Position.Seq, m.Channel)
	}}
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer, chat.WithHistory(history)))
	defer service.Shutdown(context.Background())

	ctx := context.Background()
	must(service.Broadcast(ctx, chat.Message{Channel: "ops", Sender: "eva", Content: "deploying"}))
	must(service.Broadcast(ctx, chat.Message{Channel: "ops", Sender: "eva", Content: "done"}))
	// Output:
	// audit: eva published message 1 of "ops"
	// audit: eva published message 2 of "ops"
}

// linked is a registry of several nodes that share a history. It delivers messages on
// its own node through the MemoryRegistry that it embeds, and sends them to the others.
type linked struct {
	*chat.MemoryRegistry
	others []chan []chat.Message // a real one has a network here
}

// Publish implements chat.Registry.
func (r linked) Publish(ctx context.Context, msgs ...chat.Message) error {
	for _, node := range r.others {
		node <- msgs
	}
	return r.MemoryRegistry.Publish(ctx, msgs...)
}

// receive delivers the messages of other nodes until they end. Their order does not
// matter, nor does a repeated one: the MemoryRegistry goes by their positions, and
// reads a missing one from the history.
func (r linked) receive(ctx context.Context, from chan []chat.Message) {
	for msgs := range from {
		_ = r.MemoryRegistry.Publish(ctx, msgs...) // an error is the end of ctx
	}
}

// A registry for several nodes embeds a MemoryRegistry. This one carries messages. One
// for users on all nodes also overrides Add, Connected, CloseUser and Start.
func ExampleRegistry_publish() {
	ctx := context.Background()
	signer, history := must(chat.NewHS256(secret)), chat.NewMemoryHistory(chat.MemoryLimits{})
	toA, toB := make(chan []chat.Message), make(chan []chat.Message)
	defer close(toA)
	defer close(toB)
	start := func(from chan []chat.Message, to ...chan []chat.Message) (*chat.Service, *httptest.Server) {
		registry := linked{chat.NewMemoryRegistry(), to}
		go registry.receive(ctx, from)
		service := must(chat.New(signer, chat.WithRegistry(registry), chat.WithHistory(history)))
		return service, httptest.NewServer(service)
	}
	a, serverA := start(toA, toB)
	defer stop(a, serverA)
	b, serverB := start(toB, toA)
	defer stop(b, serverB)

	ana := connect(serverB.URL+"/ws/chat", must(signer.Issue(chat.User{Name: "ana"})).AccessToken)
	defer ana.close()
	must(a.Broadcast(ctx, chat.Message{Sender: "ops", Content: "from node A"}))
	must(b.Broadcast(ctx, chat.Message{Sender: "ops", Content: "from node B"}))
	fmt.Println(ana.next())
	fmt.Println(ana.next())
	// Output:
	// ops: from node A
	// ops: from node B
}

// uplinked is a registry whose messages have to pass something that may be down.
type uplinked struct {
	chat.Registry
	down *atomic.Bool
}

// Check implements chat.Registry.
func (r uplinked) Check(ctx context.Context) error {
	if r.down.Load() {
		return errors.New("the uplink is down")
	}
	return r.Registry.Check(ctx)
}

// A registry whose Check fails has messages rejected before they are stored: what would
// not be delivered is not in the history either.
func ExampleRegistry_check() {
	var down atomic.Bool
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer, chat.WithRegistry(uplinked{chat.NewMemoryRegistry(), &down})))
	ctx := context.Background()
	defer service.Shutdown(ctx)

	down.Store(true)
	_, err := service.Broadcast(ctx, chat.Message{Content: "hello?"})
	fmt.Println(errors.Is(err, chat.ErrUnavailable))
	down.Store(false)
	m := must(service.Broadcast(ctx, chat.Message{Content: "hello!"}))
	fmt.Println("message", m.Position.Seq)
	// Output:
	// true
	// message 1
}

// doorbell also calls ring for every join and leave.
type doorbell struct {
	chat.Registry
	ring func(chat.PresenceChange)
}

// Start implements chat.Registry. ring has to return at once, as changed does.
func (r doorbell) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	return r.Registry.Start(h, func(c chat.PresenceChange) {
		r.ring(c)
		changed(c)
	})
}

// Start gives a registry the function that it calls for every join and leave. A wrapper
// can listen in.
func ExampleRegistry_start() {
	changes := make(chan chat.PresenceChange, 10)
	registry := doorbell{chat.NewMemoryRegistry(), func(c chat.PresenceChange) {
		if c.Channel == "" {
			changes <- c
		}
	}}
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer, chat.WithRegistry(registry)))
	server := httptest.NewServer(service)
	defer stop(service, server)

	token := must(signer.Issue(chat.User{Name: "ana"}))
	ana := connect(server.URL+"/ws/chat", token.AccessToken)
	fmt.Printf("%+v\n", <-changes)
	ana.close()
	fmt.Printf("%+v\n", <-changes)
	// Output:
	// {Channel: User:{Name:ana Role:user} Joined:true Size:1 JoinSize:1}
	// {Channel: User:{Name:ana Role:user} Joined:false Size:0 JoinSize:1}
}

// discreet announces no joins and leaves in some channels.
type discreet struct {
	chat.Registry
	hidden map[string]bool
}

// Announce implements chat.Registry.
func (r discreet) Announce(channel string, adminsOnly bool, events []chat.Event) {
	if !r.hidden[channel] {
		r.Registry.Announce(channel, adminsOnly, events)
	}
}

// Announce brings joins and leaves to sockets. A wrapper can choose which.
func ExampleRegistry_announce() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer,
		chat.WithRegistry(discreet{chat.NewMemoryRegistry(), map[string]bool{"confessions": true}}),
		chat.WithPresenceWindow(time.Millisecond)))
	server := httptest.NewServer(service)
	defer stop(service, server)

	token := must(signer.Issue(chat.User{Name: "ana"}))
	ana := connect(server.URL+"/ws/chat?channel=confessions&channel=lobby", token.AccessToken)
	defer ana.close()
	for range 2 {
		e := ana.nextOf("user_joined")
		fmt.Printf("%s joined %q\n", e.Username, e.Channel)
	}
	// Output:
	// ana joined ""
	// ana joined "lobby"
}

// printer is a chat.Socket that keeps what it gets as text, for trying a registry without
// any network.
type printer struct{ got chan string }

func (p printer) ID() string       { return "a socket's id" }
func (p printer) User() chat.User  { return chat.User{Name: "ana", Role: chat.RoleUser} }
func (p printer) Since() time.Time { return time.Time{} }

func (p printer) Deliver(e chat.Event) { p.got <- fmt.Sprint(e.Type, ": ", e.Message.Content) }

func (p printer) Close(code chat.CloseCode, reason string) {
	p.got <- fmt.Sprint("closed with ", int(code), ": ", reason)
}

// A registry knows a connection as a Socket.
func ExampleSocket() {
	ctx := context.Background()
	registry := chat.NewMemoryRegistry()
	history := must(registry.Start(nil, nil))

	ana := printer{make(chan string, 10)} // room enough: Deliver must not block
	must(registry.Add(ctx, ana, 0))
	must(registry.Join(ctx, ana, "ops"))
	stored := must(history.Append(ctx, chat.Message{Channel: "ops", Content: "deploying", Time: time.Now()}))
	must(0, registry.Publish(ctx, stored[0]))
	must(registry.CloseUser(ctx, "ana", 0, chat.CloseDisconnected, "enough"))
	fmt.Println(<-ana.got)
	fmt.Println(<-ana.got)
	must(0, registry.Remove(ctx, ana))
	// Output:
	// message: deploying
	// closed with 4002: enough
}

// After Flush, all messages published before have reached this node's sockets. That
// makes tests simple.
func ExampleRegistry_flush() {
	ctx := context.Background()
	registry := chat.NewMemoryRegistry()
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer,
		chat.WithRegistry(registry), chat.WithPresence(chat.PresenceToNobody))) // messages alone
	server := httptest.NewServer(service)
	defer stop(service, server)

	for _, name := range []string{"ana", "bob"} {
		token := must(signer.Issue(chat.User{Name: name}))
		socket := connect(server.URL+"/ws/chat", token.AccessToken)
		defer socket.close()
	}
	before := registry.Stats().Deliveries
	must(service.Broadcast(ctx, chat.Message{Content: "lunch is ready"}))
	must(0, registry.Flush(ctx))
	fmt.Println(registry.Stats().Deliveries-before, "deliveries")
	// Output: 2 deliveries
}

// nextOf is the next event of a type.
func (s exampleSocket) nextOf(typ string) (e wstest.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for e.Type != typ {
		_, text, err := s.conn.Read(ctx)
		if err != nil {
			panic(err)
		}
		e = wstest.Event{}
		if err := json.Unmarshal(text, &e); err != nil {
			panic(err)
		}
	}
	return e
}
