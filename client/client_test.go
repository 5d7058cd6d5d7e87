package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/pipenet"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test waits for something that must come.
const patience = time.Minute

var secret = []byte("a test's secret of 32 bytes, no less")

// server is a service behind a real http.Server: over TLS, or over pipes inside a
// testing/synctest bubble.
type server struct {
	*chat.Service
	t     testing.TB
	url   string
	addr  string
	http  *http.Client
	pipes *pipes // of one over pipes
}

// serve starts a service over TLS.
func serve(t testing.TB, opts ...chat.Option) *server {
	t.Helper()
	return serveWith(t, nil, opts...)
}

// serveWith wraps the service's handler.
func serveWith(t testing.TB, around func(http.Handler) http.Handler, opts ...chat.Option) *server {
	t.Helper()
	s, h := newServer(t, nil, around, opts)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.StartTLS()
	t.Cleanup(func() {
		s.shutdown()
		srv.Close()
	})
	s.url, s.addr, s.http = srv.URL, srv.Listener.Addr().String(), srv.Client()
	return s
}

// servePipes starts a service over pipes, for tests with a clock.
func servePipes(t testing.TB, around func(http.Handler) http.Handler, opts ...chat.Option) *server {
	t.Helper()
	return servePipesAs(t, nil, around, opts...)
}

// servePipesAs is servePipes with another authenticator.
func servePipesAs(t testing.TB, auth chat.Authenticator, around func(http.Handler) http.Handler, opts ...chat.Option) *server {
	t.Helper()
	s, h := newServer(t, auth, around, opts)
	s.pipes = &pipes{l: pipenet.Listen(), conns: make(map[*pipe]bool)}
	srv := &http.Server{Handler: h}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(s.pipes.l)
	}()
	transport := &http.Transport{DialContext: s.pipes.dial}
	t.Cleanup(func() {
		s.shutdown()
		transport.CloseIdleConnections()
		_ = srv.Close()
		<-served
	})
	s.url, s.http = "http://pipe.test", &http.Client{Transport: transport}
	return s
}

func newServer(t testing.TB, auth chat.Authenticator, around func(http.Handler) http.Handler, opts []chat.Option) (*server, http.Handler) {
	t.Helper()
	if auth == nil {
		signer, err := chat.NewHS256(secret)
		if err != nil {
			t.Fatal(err)
		}
		auth = signer
	}
	svc, err := chat.New(auth, append([]chat.Option{chat.WithLogger(slog.New(slog.DiscardHandler))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	if around == nil {
		around = func(h http.Handler) http.Handler { return h }
	}
	return &server{Service: svc, t: t}, around(svc)
}

func (s *server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.t.Errorf("Shutdown: %v", err)
	}
}

// token is a valid token for a name; "admin" and names that begin with it are admins.
func (s *server) token(name string) string {
	s.t.Helper()
	return tokenFor(s.t, name, time.Hour)
}

func tokenFor(t testing.TB, name string, ttl time.Duration) string {
	t.Helper()
	signer, err := chat.NewHS256(secret, chat.WithTokenTTL(ttl))
	if err != nil {
		t.Fatal(err)
	}
	role := chat.RoleUser
	if strings.HasPrefix(name, "admin") {
		role = chat.RoleAdmin
	}
	token, err := signer.Issue(chat.User{Name: name, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return token.AccessToken
}

// publish broadcasts texts.
func (s *server) publish(channel string, texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		if _, err := s.Broadcast(context.Background(), chat.Message{Channel: channel, Sender: "ci", Content: text}); err != nil {
			s.t.Fatalf("Broadcast: %v", err)
		}
	}
}

// quick is a backoff for tests.
func quick() client.Option { return client.WithBackoff(time.Millisecond, 20*time.Millisecond) }

// dial connects as a user, whose token is fixed.
func (s *server) dial(name string, opts ...client.Option) *client.Client {
	s.t.Helper()
	c, err := s.tryDial(append([]client.Option{client.WithToken(s.token(name))}, opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *server) tryDial(opts ...client.Option) (*client.Client, error) {
	c, err := client.Dial(within(s.t), s.url, append([]client.Option{client.WithHTTPClient(s.http), quick()}, opts...)...)
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func (s *server) api(name string) *client.API {
	s.t.Helper()
	a, err := client.NewAPI(s.url, client.WithToken(s.token(name)), client.WithHTTPClient(s.http))
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// feed reads events one by one.
type feed struct {
	t    testing.TB
	next func() (client.Event, error, bool)
	stop func()
}

func follow(t testing.TB, c *client.Client) *feed {
	next, stop := iter.Pull2(c.Events(within(t)))
	t.Cleanup(stop)
	return &feed{t, next, stop}
}

// want returns the next event of type T; others may come before, but no message and
// no gap.
func want[T client.Event](f *feed) T {
	f.t.Helper()
	for {
		e, err, ok := f.next()
		if err != nil || !ok {
			f.t.Fatalf("waiting for %T: %v", *new(T), err)
		}
		switch e := e.(type) {
		case T:
			return e
		case client.Message, client.Gap:
			f.t.Fatalf("waiting for %T: got %+v", *new(T), e)
		}
	}
}

// texts reads n messages.
func (f *feed) texts(n int) (contents []string) {
	f.t.Helper()
	for range n {
		contents = append(contents, want[client.Message](f).Content)
	}
	return contents
}

// end reads until the error.
func (f *feed) end() error {
	f.t.Helper()
	for {
		e, err, ok := f.next()
		switch {
		case !ok:
			f.t.Fatal("the sequence ended without an error")
		case err != nil && e != nil:
			f.t.Fatalf("got %+v with the error %v", e, err)
		case err != nil:
			if _, _, ok := f.next(); ok {
				f.t.Error("something follows the error")
			}
			return err
		}
	}
}

func numbered(prefix string, n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprint(prefix, i+1))
	}
	return texts
}

func TestAMessageIsAcknowledgedAndComes(t *testing.T) {
	s := serve(t)
	c := s.dial("admin", client.WithChannels("ops"))
	f := follow(t, c)
	if got := want[client.Welcome](f); got.User != "admin" || got.Role != "admin" || got.ConnectionID == "" || got.Resumed {
		t.Errorf("got %+v", got)
	}
	for _, channel := range []string{"", "ops", "@admin"} {
		var opts []client.BroadcastOption
		if channel != "" {
			opts = append(opts, client.To(channel))
		}
		content := "hello <" + channel + "> \u2028 \"\\ é"
		ack, err := c.Broadcast(t.Context(), content, opts...)
		if err != nil {
			t.Fatal(err)
		}
		m := want[client.Message](f)
		if age := time.Since(m.Time); age < 0 || age > time.Minute || m.Time.Location() != time.UTC {
			t.Errorf("the time is %v", m.Time)
		}
		m.Time = time.Time{}
		if diff := cmp.Diff(client.Message{ID: ack.ID, Channel: channel, Sender: "admin", Content: content}, m); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
	}
}

func TestComingsAndGoingsAreTold(t *testing.T) {
	s := serve(t, chat.WithPresenceWindow(time.Millisecond))
	f := follow(t, s.dial("ana", client.WithChannels("ops")))
	for want[client.UserJoined](f).Channel != "ops" { // she herself, twice
	}
	bob := s.dial("bob", client.WithChannels("ops"))
	got := map[string]client.UserJoined{}
	for range 2 {
		p := want[client.UserJoined](f)
		got[p.Channel] = p
	}
	bob.Close()
	for range 2 {
		p := client.UserJoined(want[client.UserLeft](f))
		if got[p.Channel].User != "bob" || p.User != "bob" || p.Role != "user" || p.Time.Before(got[p.Channel].Time) {
			t.Errorf("joined %+v, left %+v", got[p.Channel], p)
		}
	}
}

func TestChannelsAreJoinedAndLeft(t *testing.T) {
	s := serve(t)
	c := s.dial("ana", client.WithChannels("a"))
	f := follow(t, c)
	for range 2 { // joining twice is once
		if err := c.Join(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Join(t.Context(), "@ana"); err != nil {
		t.Errorf("one's own: %v", err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, c.Channels()); diff != "" {
		t.Errorf("Channels (-want +got):\n%s", diff)
	}
	s.publish("b", "1")
	s.publish("a", "2")
	got := f.texts(2)
	if len(c.Since()) != 4 {
		t.Errorf("Since = %q", c.Since())
	}
	if err := c.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	s.publish("a", "not for her")
	s.publish("b", "3")
	got = append(got, f.texts(1)...)
	if !cmp.Equal(got, []string{"1", "2", "3"}) && !cmp.Equal(got, []string{"2", "1", "3"}) {
		t.Errorf("got %q", got)
	}
	if diff := cmp.Diff([]string{"b"}, c.Channels()); diff != "" {
		t.Errorf("Channels (-want +got):\n%s", diff)
	}
	if err := c.Leave(t.Context(), "a"); !errors.Is(err, client.ErrNotJoined) {
		t.Errorf("leaving it again: %v", err)
	}
}

func TestErrorsOfCommandsAreToldApart(t *testing.T) {
	s := serve(t, chat.WithCommandRate(0.001, 8), chat.WithContentLimit(1000), chat.WithReadLimit(4000))
	ana, admin := s.dial("ana"), s.dial("admin")
	broadcast := func(c *client.Client, content string, opts ...client.BroadcastOption) error {
		_, err := c.Broadcast(within(t), content, opts...)
		return err
	}
	tests := []struct {
		name string
		err  error
		want error
	}{
		{"not an admin", broadcast(ana, "hi"), client.ErrForbidden},
		{"another's channel", ana.Join(within(t), "@bob"), client.ErrForbidden},
		{"no channel's name", ana.Join(within(t), "no such name"), client.ErrInvalid},
		{"no name", ana.Join(within(t), ""), client.ErrInvalid},
		{"everyone's", ana.Leave(within(t), ""), client.ErrInvalid},
		{"one's own", ana.Leave(within(t), "@ana"), client.ErrInvalid},
		{"a channel that was never joined", ana.Leave(within(t), "x"), client.ErrNotJoined},
		{"nothing", broadcast(admin, ""), client.ErrInvalid},
		{"not UTF-8", broadcast(admin, "\xff"), client.ErrInvalid},
		{"to nowhere", broadcast(admin, "hi", client.To("")), client.ErrInvalid},
		{"to no channel", broadcast(admin, "hi", client.To("no such name")), client.ErrInvalid},
		{"over the content limit", broadcast(admin, strings.Repeat("x", 1001)), client.ErrTooLarge},
		{"over the read limit", broadcast(admin, strings.Repeat("x", 5000)), client.ErrTooLarge},
		{"after that all is well", broadcast(admin, "hi"), nil},
	}
	for _, tt := range tests {
		if !errors.Is(tt.err, tt.want) || tt.want == nil && tt.err != nil {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
		if errors.Is(tt.err, client.ErrUnconfirmed) {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
	}
	limited := false
	for range 10 {
		limited = limited || errors.Is(broadcast(ana, "hi"), client.ErrRateLimited)
	}
	if !limited {
		t.Error("commands without end are not limited")
	}
}

func TestOneLoopAtATime(t *testing.T) {
	s := serve(t)
	c := s.dial("ana")
	s.publish("", numbered("", 4)...)
	f := follow(t, c)
	got := f.texts(1)
	if err := follow(t, c).end(); !errors.Is(err, client.ErrConsumed) {
		t.Errorf("a second loop: %v", err)
	}
	got = append(got, f.texts(1)...)
	f.stop()
	f = follow(t, c)
	got = append(got, f.texts(2)...)
	if diff := cmp.Diff(numbered("", 4), got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestTheLoopEndsWithItsContext(t *testing.T) {
	s := serve(t)
	c := s.dial("ana")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var err error
	for event, end := range c.Events(ctx) {
		if err = end; err != nil {
			break
		}
		if _, ok := event.(client.Welcome); ok {
			time.AfterFunc(10*time.Millisecond, cancel)
		}
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the loop ended with %v", err)
	}
	s.publish("", "1")
	if got := follow(t, c).texts(1); got[0] != "1" {
		t.Errorf("got %q", got)
	}
}

func TestClosingEndsAll(t *testing.T) {
	s := serve(t, chat.WithPresenceWindow(time.Millisecond))
	watch := follow(t, s.dial("admin"))
	want[client.UserJoined](watch)
	c := s.dial("ana")
	want[client.UserJoined](watch)
	var loop sync.WaitGroup
	loop.Go(func() {
		if err := follow(t, c).end(); !errors.Is(err, client.ErrClosed) {
			t.Errorf("the loop ended with %v", err)
		}
	})
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	loop.Wait()
	want[client.UserLeft](watch)
	if _, err := c.Broadcast(t.Context(), "hi"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Broadcast: %v", err)
	}
	if err := c.Join(t.Context(), "a"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Join: %v", err)
	}
	if err := follow(t, c).end(); !errors.Is(err, client.ErrClosed) {
		t.Errorf("another loop: %v", err)
	}
}

func TestTheLoopMayClose(t *testing.T) {
	s := serve(t)
	c := s.dial("ana", client.WithEventLimit(1, 1))
	s.publish("", numbered("", 100)...)
	var err error
	for _, err = range c.Events(within(t)) {
		if err != nil {
			break
		}
		c.Close()
	}
	if !errors.Is(err, client.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

func TestDialsContextBoundsTheFirstTryAlone(t *testing.T) {
	s := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := client.Dial(ctx, s.url, client.WithToken(s.token("ana")), client.WithHTTPClient(s.http))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	f := follow(t, c)
	want[client.Welcome](f)
	s.publish("", "1")
	f.texts(1)

	_, err = client.Dial(ctx, s.url, client.WithToken(s.token("ana")), client.WithHTTPClient(s.http))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Dial with a context that has ended: %v", err)
	}
}
