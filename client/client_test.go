package client_test

import (
	"context"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
	"github.com/reto10/chat/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

var secret = []byte("a test's secret of 32 bytes, no less")

// server is a service over TLS.
type server struct {
	*chat.Service
	t      testing.TB
	signer *chat.HS256
	url    string
	http   *http.Client
}

func serve(t testing.TB, opts ...chat.Option) *server {
	t.Helper()
	signer, err := chat.NewHS256(secret, chat.WithTokenTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	svc, err := chat.New(signer, append([]chat.Option{chat.WithLogger(slog.New(slog.DiscardHandler))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewTLSServer(svc)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := svc.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		srv.Close()
	})
	return &server{Service: svc, t: t, signer: signer, url: srv.URL, http: srv.Client()}
}

// token is a valid token for a name; "admin" and names that begin with it are admins.
func (s *server) token(name string) string {
	s.t.Helper()
	role := chat.RoleUser
	if strings.HasPrefix(name, "admin") {
		role = chat.RoleAdmin
	}
	token, err := s.signer.Issue(chat.User{Name: name, Role: role})
	if err != nil {
		s.t.Fatal(err)
	}
	return token.AccessToken
}

// dial connects as a user.
func (s *server) dial(name string, opts ...client.Option) *client.Client {
	s.t.Helper()
	c, err := client.Dial(within(s.t), s.url, append([]client.Option{
		client.WithToken(s.token(name)), client.WithHTTPClient(s.http),
		client.WithBackoff(time.Millisecond, 20*time.Millisecond),
	}, opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// feed pulls events one by one.
type feed struct {
	t    testing.TB
	next func() (client.Event, error, bool)
}

func follow(t testing.TB, c *client.Client) *feed {
	next, stop := iter.Pull2(c.Events(within(t)))
	t.Cleanup(stop)
	return &feed{t, next}
}

// want returns the next event of type T; others may come before.
func want[T client.Event](f *feed) T {
	f.t.Helper()
	for {
		e, err, ok := f.next()
		if err != nil || !ok {
			f.t.Fatalf("waiting for %T: %v", *new(T), err)
		}
		if e, ok := e.(T); ok {
			return e
		}
	}
}

func TestAMessageIsAcknowledgedAndComes(t *testing.T) {
	s := serve(t)
	c := s.dial("admin", client.WithChannels("ops"))
	f := follow(t, c)
	if got := want[client.Connected](f); got.User != "admin" || got.Role != "admin" || got.Resumed {
		t.Errorf("got %+v", got)
	}
	for _, channel := range []string{"", "ops", "@admin"} {
		var opts []client.BroadcastOption
		if channel != "" {
			opts = append(opts, client.To(channel))
		}
		ack, err := c.Broadcast(t.Context(), "hello <"+channel+">", opts...)
		if err != nil {
			t.Fatal(err)
		}
		m := want[client.Message](f)
		if m.ID != ack.ID || m.Channel != channel || m.Sender != "admin" || m.Content != "hello <"+channel+">" || time.Since(m.Time) > time.Minute {
			t.Errorf("got %+v, the ack is %+v", m, ack)
		}
	}
}
