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

// uplinked is a registry whose messages have to pass something that may be down.
type uplinked struct {
	*chat.MemoryRegistry
	down *atomic.Bool
}

// Check implements chat.HealthChecker.
func (r uplinked) Check(context.Context) error {
	if r.down.Load() {
		return errors.New("the uplink is down")
	}
	return nil
}

// A registry that is a HealthChecker refuses messages before they are stored: what
// nobody would get is not in the history either.
func ExampleHealthChecker() {
	var down atomic.Bool
	signer := must(chat.NewHS256(secret))
	history := chat.NewMemoryHistory(chat.MemoryLimits{})
	service := must(chat.New(signer,
		chat.WithRegistry(uplinked{chat.NewMemoryRegistry(), &down}),
		chat.WithHistory(history)))
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

// doorbell tells somebody else, too, who comes and goes.
type doorbell struct {
	*chat.MemoryRegistry
	ring func(chat.PresenceChange)
}

// WatchPresence implements chat.PresenceSource. What it hands on to may not wait.
func (r doorbell) WatchPresence(fn func(chat.PresenceChange)) {
	r.MemoryRegistry.WatchPresence(func(c chat.PresenceChange) {
		r.ring(c)
		fn(c)
	})
}

// A registry that is a PresenceSource tells the service of comings and goings, and
// one of your own can listen in.
func ExamplePresenceSource() {
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

// discreet is a registry that tells nobody of who is in some channels.
type discreet struct {
	*chat.MemoryRegistry
	hidden map[string]bool
}

// Announce implements chat.Notifier.
func (r discreet) Announce(channel string, adminsOnly bool, events []chat.Event) {
	if !r.hidden[channel] {
		r.MemoryRegistry.Announce(channel, adminsOnly, events)
	}
}

// A registry that is a Notifier brings comings and goings to sockets, and one of
// your own can choose which.
func ExampleNotifier() {
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

// curious is a registry that reads the history itself, too.
type curious struct {
	*chat.MemoryRegistry
	history *chat.History // set before use
}

// ReadHistory implements chat.HistoryReader.
func (r curious) ReadHistory(h chat.History) error {
	*r.history = h
	return r.MemoryRegistry.ReadHistory(h) // it fills gaps from there
}

// A registry that is a HistoryReader is given the service's history before it is
// used.
func ExampleHistoryReader() {
	registry := curious{chat.NewMemoryRegistry(), new(chat.History)}
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer, chat.WithRegistry(registry)))
	ctx := context.Background()
	defer service.Shutdown(ctx)

	must(service.Broadcast(ctx, chat.Message{Content: "one"}))
	must(service.Broadcast(ctx, chat.Message{Content: "two"}))
	for _, m := range must((*registry.history).After(ctx, "", chat.Position{}, chat.Limit{Count: 10})) {
		fmt.Println(m.Position.Seq, m.Content)
	}
	// Output:
	// 1 one
	// 2 two
}

// printer is a chat.Socket that prints what it is told, for trying a registry
// without any network.
type printer struct{ told chan string }

func (p printer) ID() string       { return "a session" }
func (p printer) User() chat.User  { return chat.User{Name: "ana", Role: chat.RoleUser} }
func (p printer) Since() time.Time { return time.Time{} }

func (p printer) Deliver(e chat.Event) { p.told <- fmt.Sprint(e.Type, ": ", e.Message.Content) }

func (p printer) Close(code chat.CloseCode, reason string) {
	p.told <- fmt.Sprint("closed with ", int(code), ": ", reason)
}

// A Socket is all that a registry sees of a connection.
func ExampleSocket() {
	ctx := context.Background()
	registry, history := chat.NewMemoryRegistry(), chat.NewMemoryHistory(chat.MemoryLimits{})
	must(0, registry.ReadHistory(history))

	ana := printer{make(chan string, 10)} // room enough: Deliver must not block
	must(registry.Add(ctx, ana))
	must(registry.Join(ctx, ana, "ops"))
	stored := must(history.Append(ctx, chat.Message{Channel: "ops", Content: "deploying", Time: time.Now()}))
	must(0, registry.Publish(ctx, stored[0]))
	must(registry.CloseUser(ctx, "ana", 0, chat.CloseDisconnected, "enough"))
	fmt.Println(<-ana.told)
	fmt.Println(<-ana.told)
	must(0, registry.Remove(ctx, ana))
	// Output:
	// message: deploying
	// closed with 4002: enough
}

// A registry that is a Flusher can be waited for, which makes tests simple: behind
// Flush all that was broadcast before has reached this node's sockets.
func ExampleFlusher() {
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
	before := registry.Deliveries()
	must(service.Broadcast(ctx, chat.Message{Content: "lunch is ready"}))
	must(0, registry.Flush(ctx))
	fmt.Println(registry.Deliveries()-before, "deliveries")
	// Output: 2 deliveries
}

// nextOf is the next event of a type.
func (s exampleSocket) nextOf(typ string) (e event) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for e.Type != typ {
		_, text, err := s.conn.Read(ctx)
		if err != nil {
			panic(err)
		}
		e = event{}
		if err := json.Unmarshal(text, &e); err != nil {
			panic(err)
		}
	}
	return e
}
