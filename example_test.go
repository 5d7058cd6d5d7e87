package chat_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// The service below a prefix of a mux that has other things to serve as well.
// Tokens are signed with a secret that the rest of the program shares.
func Example_mount() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer))

	mux := http.NewServeMux()
	mux.Handle("/", http.NotFoundHandler()) // the rest of the site
	mux.Handle("/chat/", http.StripPrefix("/chat", service))
	server := httptest.NewServer(mux)
	defer stop(service, server)

	token := must(signer.Issue(chat.User{Name: "ana"}))
	ana := connect(server.URL+"/chat/ws/chat", token.AccessToken)
	defer ana.close()

	must(service.Broadcast(context.Background(), chat.Message{Sender: "ops", Content: "lunch is ready"}))
	fmt.Println(ana.next())
	// Output: ops: lunch is ready
}

// sessions is a login that was there before the chat: what a session's id stands for.
type sessions map[string]chat.User

// Authenticate says whose session it is. The socket lives no longer than the
// identity that it returns.
func (s sessions) Authenticate(_ context.Context, token string) (chat.Identity, error) {
	user, ok := s[token]
	if !ok {
		return chat.Identity{}, fmt.Errorf("%w: no such session", chat.ErrUnauthenticated)
	}
	return chat.Identity{User: user, Expires: time.Now().Add(time.Hour)}, nil
}

// An Authenticator of one's own: any token will do that it can turn into a user.
func ExampleAuthenticator() {
	service := must(chat.New(sessions{
		"s3cr3t": {Name: "ana", Role: chat.RoleAdmin},
	}))
	server := httptest.NewServer(service)
	defer stop(service, server)

	ana := connect(server.URL+"/ws/chat", "s3cr3t")
	defer ana.close()
	ana.send(`{"type":"broadcast","content":"good morning"}`)
	fmt.Println(ana.next())
	// Output: ana: good morning
}

// mirror copies every message to somewhere else on its way to the sockets.
type mirror struct {
	chat.Registry
	copy func(chat.Message)
}

func (r mirror) Publish(ctx context.Context, msgs ...chat.Message) error {
	for _, m := range msgs {
		r.copy(m)
	}
	return r.Registry.Publish(ctx, msgs...)
}

// To add something to any registry, embed the interface and override a method: here
// every message is copied elsewhere, too.
func ExampleRegistry() {
	registry := mirror{chat.NewMemoryRegistry(), func(m chat.Message) {
		fmt.Printf("copied %q to the log\n", m.Content)
	}}
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer, chat.WithRegistry(registry)))
	server := httptest.NewServer(service)
	defer stop(service, server)

	token := must(signer.Issue(chat.User{Name: "ana"}))
	ana := connect(server.URL+"/ws/chat", token.AccessToken)
	defer ana.close()

	must(service.Broadcast(context.Background(), chat.Message{Sender: "ops", Content: "back in a minute"}))
	fmt.Println(ana.next())
	// Output:
	// copied "back in a minute" to the log
	// ops: back in a minute
}

// newsroom is the default policy, and editors publish the news.
type newsroom struct{ chat.DefaultPolicy }

func (p newsroom) Publish(ctx context.Context, who chat.Identity, channel string) error {
	if who.User.Role == "editor" && channel == "news" {
		return nil
	}
	return p.DefaultPolicy.Publish(ctx, who, channel)
}

// A Policy of one's own embeds the default one and changes what it has to.
func ExamplePolicy() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer, chat.WithPolicy(newsroom{})))
	server := httptest.NewServer(service)
	defer stop(service, server)

	token := must(signer.Issue(chat.User{Name: "eva", Role: "editor"}))
	eva := connect(server.URL+"/ws/chat?channel=news", token.AccessToken)
	defer eva.close()

	eva.send(`{"type":"broadcast","channel":"news","content":"it rains"}`)
	fmt.Println(eva.next())
	eva.send(`{"type":"broadcast","channel":"sports","content":"it rains"}`)
	fmt.Println(eva.next())
	// Output:
	// eva: it rains
	// error forbidden: only an admin may broadcast
}

// Go code publishes without a socket: here to one person, in the channel that
// only ana reads.
func ExampleService_Broadcast() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer))
	server := httptest.NewServer(service)
	defer stop(service, server)

	token := must(signer.Issue(chat.User{Name: "ana"}))
	ana := connect(server.URL+"/ws/chat", token.AccessToken)
	defer ana.close()

	must(service.Broadcast(context.Background(), chat.Message{
		Channel: chat.UserChannel("ana"),
		Sender:  "billing",
		Content: "your invoice is ready",
	}))
	fmt.Println(ana.next())
	// Output: billing: your invoice is ready
}

// The service goes first: an http.Server knows nothing of its sockets, and goes
// on answering 503 to new ones meanwhile.
func ExampleService_Shutdown() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer))
	server := &http.Server{Handler: service}
	listener := must(net.Listen("tcp", "localhost:0"))
	go server.Serve(listener)

	token := must(signer.Issue(chat.User{Name: "ana"}))
	ana := connect("http://"+listener.Addr().String()+"/ws/chat", token.AccessToken)
	bye := make(chan string)
	go func() { bye <- ana.next() }()

	// A program gets here when it is told to end, as by signal.NotifyContext.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := errors.Join(service.Shutdown(ctx), server.Shutdown(ctx))

	fmt.Println(<-bye)
	fmt.Println("error:", err)
	// Output:
	// closed 1001: the server is going away
	// error: <nil>
}

// The WebSocket alone, for a program with a login and routes of its own.
func ExampleService_SocketHandler() {
	service := must(chat.New(sessions{"s3cr3t": {Name: "ana"}}))

	mux := http.NewServeMux()
	mux.Handle("/live", service.SocketHandler())
	server := httptest.NewServer(mux)
	defer stop(service, server)

	ana := connect(server.URL+"/live", "s3cr3t")
	defer ana.close()
	for _, p := range must(service.Connected(context.Background(), "")) {
		fmt.Println(p.User.Name, p.Connections)
	}
	// Output: ana 1
}

// Tokens of somebody else's identity provider, checked with the keys that it
// publishes.
func ExampleNewJWKS() {
	provider := startProvider("https://id.example")
	defer provider.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel() // ends the fetching of keys
	auth := must(chat.NewJWKS(ctx, provider.URL+"/jwks.json",
		chat.WithIssuer("https://id.example"),
		chat.WithAudience("chat"),
		chat.WithRoleClaim("groups/chat")))
	service := must(chat.New(auth))
	defer service.Shutdown(ctx)

	who := must(auth.Authenticate(ctx, provider.token("chat", "ana", "admin")))
	fmt.Println(who.User.Name, who.User.Role)
	_, err := auth.Authenticate(ctx, provider.token("mail", "ana", "admin"))
	fmt.Println(err)
	// Output:
	// ana admin
	// chat: unauthenticated: token is for another audience
}

// A login of your own answers with a token as JSON, as POST /login does. A log does not
// contain the token.
func ExampleToken() {
	signer := must(chat.NewHS256(secret))
	login := func(w http.ResponseWriter, r *http.Request) {
		// Check the user here.
		token := must(signer.Issue(chat.User{Name: "ana"}))
		fmt.Println("issued", token)
		json.NewEncoder(w).Encode(token)
	}

	answer := httptest.NewRecorder()
	login(answer, httptest.NewRequest("POST", "/login", nil))
	text := answer.Body.String()
	fmt.Println(text[:19], text[strings.Index(text, "token_type"):])
	// Output:
	// issued Token(REDACTED, expires in 15m0s)
	// {"access_token":"ey token_type":"bearer","expires_in":900}
}

// Users from a file as "htpasswd -B" writes it; the service then has a /login.
func ExampleNewPasswordLogin() {
	users := must(chat.ParseUsers(strings.NewReader(
		"ana:$2y$05$JIeZLu7FxTS1Fvjd.RdwyuNwP1RwilNEFiftPcGtd2hHriqKrLLpG:admin\n")))
	signer := must(chat.NewHS256(secret, chat.WithTokenTTL(time.Hour)))
	service := must(chat.New(chat.NewPasswordLogin(users, signer)))
	server := httptest.NewServer(service)
	defer stop(service, server)

	answer := must(http.PostForm(server.URL+"/login", url.Values{
		"username": {"ana"}, "password": {"open sesame"},
	}))
	defer answer.Body.Close()
	var token struct {
		Type      string `json:"token_type"`
		ExpiresIn int    `json:"expires_in"`
	}
	json.NewDecoder(answer.Body).Decode(&token)
	fmt.Println(answer.Status, token.Type, token.ExpiresIn)
	// Output: 200 OK bearer 3600
}

// What follows is what the examples have in common and do not show: a client, a
// provider of tokens, an end.

// patience is how long an example waits for what has to come.
const patience = chatserver.Patience

// secret is the key that the examples sign tokens with.
var secret = chatserver.Secret

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func stop(service *chat.Service, server *httptest.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := service.Shutdown(ctx); err != nil {
		panic(err)
	}
	server.Close()
}

// exampleSocket is a client's end of a socket.
type exampleSocket struct{ conn *websocket.Conn }

// connect opens a socket, which is in all its channels when it returns.
func connect(url, token string) exampleSocket {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPHeader:   http.Header{"Authorization": {"Bearer " + token}},
		Subprotocols: []string{"chat.v1"},
	})
	if err != nil {
		panic(err)
	}
	if _, _, err := conn.Read(ctx); err != nil { // the welcome
		panic(err)
	}
	return exampleSocket{conn}
}

// next is the next message, error or end of the socket.
func (s exampleSocket) next() string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		_, text, err := s.conn.Read(ctx)
		if closed, ok := errors.AsType[websocket.CloseError](err); ok {
			return fmt.Sprintf("closed %d: %s", closed.Code, closed.Reason)
		} else if err != nil {
			panic(err)
		}
		var e wstest.Event
		if err := json.Unmarshal(text, &e); err != nil {
			panic(err)
		}
		switch e.Type {
		case "message":
			return e.Sender + ": " + e.Content
		case "error":
			return "error " + e.Code + ": " + e.Message
		}
	}
}

func (s exampleSocket) send(command string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, []byte(command)); err != nil {
		panic(err)
	}
}

func (s exampleSocket) close() { _ = s.conn.CloseNow() }

// identityProvider publishes its key and signs tokens with it.
type identityProvider struct {
	*httptest.Server
	issuer string
	key    jwk.Key
}

func startProvider(issuer string) identityProvider {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	key := must(jwk.FromRaw(private))
	_ = key.Set(jwk.KeyIDKey, "2026-11")
	keys := jwk.NewSet()
	_ = keys.AddKey(must(key.PublicKey()))
	return identityProvider{
		Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewEncoder(w).Encode(keys)
		})),
		issuer: issuer,
		key:    key,
	}
}

func (p identityProvider) token(audience, name, role string) string {
	claims := must(jwt.NewBuilder().Issuer(p.issuer).Audience([]string{audience}).Subject(name).
		Claim("groups/chat", role).Expiration(time.Now().Add(time.Hour)).Build())
	return string(must(jwt.Sign(claims, jwt.WithKey(jwa.EdDSA, p.key))))
}
