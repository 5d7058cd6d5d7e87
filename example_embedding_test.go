package chat_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/web"
)

// This file contains the code of docs/embedding.md and examples that run it. A test
// compares the two.

// withChat mounts the chat service below /chat of an existing site.
func withChat(site http.Handler, service *chat.Service) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", site)
	mux.Handle("/chat/", http.StripPrefix("/chat", service))
	return mux
}

// ownRoutes mounts single routes of the service at paths of the program's choice.
func ownRoutes(mux *http.ServeMux, service *chat.Service) {
	mux.Handle("/live", service.SocketHandler())
	mux.Handle("/notices", service.MessagesHandler())
	mux.Handle("/admin/online", service.ConnectedHandler())
	mux.Handle("/admin/users/{username}/disconnect", service.DisconnectHandler())
}

// statusRecorder records the status of the answer, as much middleware does.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap gives the WebSocket access to the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// logged logs each request when it is answered. A WebSocket's request is answered
// when the socket opens.
func logged(next http.Handler, logger *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := &statusRecorder{ResponseWriter: w}
		next.ServeHTTP(recorder, r)
		logger.Info("request", "method", r.Method, "path", r.URL.Path, "status", recorder.status) // without the query, which may contain a token
	})
}

// cookieSessions lets pages of this site use the session in their cookie: the
// session becomes the token that the service's Authenticator checks.
func cookieSessions(next http.Handler) http.Handler {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if session, err := r.Cookie("session"); err == nil && r.Header.Get("Authorization") == "" {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "Bearer "+session.Value)
		}
		next.ServeHTTP(w, r)
	})
	return http.NewCrossOriginProtection().Handler(handler) // any page can make a browser send cookies
}

// behindProxy trusts X-Forwarded-For if the request comes from the proxy. It uses
// the last address, which the proxy itself wrote.
func behindProxy(proxy netip.Prefix) chat.Option {
	return chat.WithClientAddr(func(r *http.Request) string {
		peer, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			return r.RemoteAddr
		}
		if addr, err := netip.ParseAddr(peer); err != nil || !proxy.Contains(addr.Unmap()) {
			return peer
		}
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		last, err := netip.ParseAddr(strings.TrimSpace(hops[len(hops)-1]))
		if err != nil {
			return peer
		}
		return last.String()
	})
}

// newJWKS accepts the tokens that an identity provider issues for the audience
// "chat", which is this service. It fetches keys until ctx ends.
func newJWKS(ctx context.Context, provider string) (*chat.JWKS, error) {
	return chat.NewJWKS(ctx, provider+"/jwks.json",
		chat.WithIssuer("https://id.example"),
		chat.WithAudience("chat"),
		chat.WithRoleClaim("groups/chat"))
}

// notify sends a message to one user, who need not be connected.
func notify(ctx context.Context, service *chat.Service, username, text string) error {
	_, err := service.Broadcast(ctx, chat.Message{
		Channel: chat.UserChannel(username),
		Sender:  "billing",
		Content: text,
	})
	switch {
	case errors.Is(err, chat.ErrUnavailable):
		return fmt.Errorf("notifying %s, to be retried: %w", username, err) // it may have been stored
	case err != nil:
		return fmt.Errorf("notifying %s: %w", username, err) // a retry would fail too
	}
	return nil
}

// teams is a policy. Users with the role "red" may join "team:red" and publish
// there. For all other channels the default applies.
type teams struct{ chat.DefaultPolicy }

func (teams) Join(_ context.Context, who chat.Identity, channel string) error {
	if team, ok := strings.CutPrefix(channel, "team:"); ok && team != who.User.Role && !who.User.Admin() {
		return fmt.Errorf("%w: %s belongs to another team", chat.ErrForbidden, channel)
	}
	return nil
}

func (p teams) Publish(ctx context.Context, who chat.Identity, channel string) error {
	if strings.HasPrefix(channel, "team:") {
		return p.Join(ctx, who, channel)
	}
	return p.DefaultPolicy.Publish(ctx, who, channel)
}

// ready tells a load balancer whether to send new clients here.
func ready(service *chat.Service, checks ...func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if service.Draining() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		for _, check := range checks {
			if err := check(ctx); err != nil {
				http.Error(w, "not ready", http.StatusServiceUnavailable) // log err, do not send it
				return
			}
		}
	}
}

// serveUntil serves until ctx ends, then closes all sockets and stops the server.
func serveUntil(ctx context.Context, server *http.Server, l net.Listener, service *chat.Service) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		service.Shutdown(context.Background())
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	// The service goes first: the server does not know its sockets, and answers 503
	// to new clients meanwhile. Close the service's backends afterwards.
	return errors.Join(service.Shutdown(ctx), server.Shutdown(ctx))
}

// withPage also serves the web client at /chat/ and chat.js at /chat/chat.js.
func withPage(site http.Handler, service *chat.Service) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", site)
	mux.Handle("/chat/", http.StripPrefix("/chat", web.Handler(service)))
	return mux
}

// A site with sessions in cookies. Its own pages use the chat without seeing a
// token; pages of other sites cannot.
func Example_cookies() {
	service := must(chat.New(sessions{"s3cr3t": {Name: "ana", Role: chat.RoleAdmin}}))
	server := httptest.NewServer(cookieSessions(withChat(http.NotFoundHandler(), service)))
	defer stop(service, server)

	for _, origin := range []string{server.URL, "https://elsewhere.example"} {
		r := must(http.NewRequest(http.MethodPost, server.URL+"/chat/messages", strings.NewReader(`{"content":"hi"}`)))
		r.AddCookie(&http.Cookie{Name: "session", Value: "s3cr3t"})
		r.Header.Set("Origin", origin)
		answer := must(http.DefaultClient.Do(r))
		answer.Body.Close()
		fmt.Println(answer.Status)
	}
	// Output:
	// 201 Created
	// 403 Forbidden
}

// Middleware whose ResponseWriter has an Unwrap method, around single routes.
func Example_middleware() {
	service := must(chat.New(sessions{"s3cr3t": {Name: "ana"}}))
	mux := http.NewServeMux()
	ownRoutes(mux, service)
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	server := httptest.NewServer(logged(mux, logger))
	defer stop(service, server)

	connect(server.URL+"/live", "s3cr3t").close()
	answer := must(http.Get(server.URL + "/notices"))
	answer.Body.Close()
	// The socket's line may come second: its handler returns after the handshake.
	// Unordered output:
	// level=INFO msg=request method=GET path=/live status=0
	// level=INFO msg=request method=GET path=/notices status=401
}

// Channels for teams, and a message to one user.
func Example_policy() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer, chat.WithPolicy(teams{}), chat.WithPresence(chat.PresenceToNobody)))
	server := httptest.NewServer(service)
	defer stop(service, server)

	token := must(signer.Issue(chat.User{Name: "ana", Role: "red"}))
	ana := connect(server.URL+"/ws/chat?channel=team:red", token.AccessToken)
	defer ana.close()
	ana.send(`{"type":"broadcast","channel":"team:red","content":"go"}`)
	fmt.Println(ana.next())
	ana.send(`{"type":"join","channel":"team:blue"}`)
	fmt.Println(ana.next())
	must(0, notify(context.Background(), service, "ana", "your invoice is ready"))
	fmt.Println(ana.next())
	// Output:
	// ana: go
	// error forbidden: team:blue belongs to another team
	// billing: your invoice is ready
}

// A whole program around a service, from start to shutdown.
func Example_serve() {
	provider := startProvider("https://id.example")
	defer provider.Close()
	ctx, end := context.WithCancel(context.Background()) // a program has signal.NotifyContext
	auth := must(newJWKS(ctx, provider.URL))
	service := must(chat.New(auth, behindProxy(netip.MustParsePrefix("127.0.0.0/8"))))
	mux := http.NewServeMux()
	mux.Handle("/", service)
	mux.Handle("GET /readyz", ready(service))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	listener := must(net.Listen("tcp", "localhost:0"))
	served := make(chan error)
	go func() { served <- serveUntil(ctx, server, listener, service) }()

	url := "http://" + listener.Addr().String()
	answer := must(http.Get(url + "/readyz"))
	answer.Body.Close()
	fmt.Println(answer.Status)
	ana := connect(url+"/ws/chat", provider.token("chat", "ana", "admin"))
	end()
	fmt.Println(ana.next())
	fmt.Println(<-served)
	// Output:
	// 200 OK
	// closed 1001: the server is going away
	// <nil>
}

// The web client and chat.js below the service's prefix.
func Example_page() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer))
	server := httptest.NewServer(withPage(http.NotFoundHandler(), service))
	defer stop(service, server)

	for _, path := range []string{"/chat/", "/chat/chat.js"} {
		answer := must(http.Get(server.URL + path))
		answer.Body.Close()
		fmt.Println(answer.Header.Get("Content-Type"))
	}
	// Output:
	// text/html; charset=utf-8
	// text/javascript; charset=utf-8
}
