package chattest

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// Users are the users of a [Service], each with a role. No role is [chat.RoleUser].
type Users map[string]string

// Service is a [chat.Service] behind a server on loopback, with users who can log in,
// for tests of code that uses one. Clients reach it over real sockets.
type Service struct {
	*chat.Service
	URL string // where it is mounted, such as "http://127.0.0.1:40123"

	t     testing.TB
	login *login
}

// NewService starts a service with these users and options. It ends the test if the
// service cannot start. When the test ends, the service shuts down, closes its sockets
// and frees its port. A registry or a history in the options stays the test's to close.
func NewService(t testing.TB, users Users, opts ...chat.Option) *Service {
	t.Helper()
	signer, err := chat.NewHS256([]byte(rand.Text() + rand.Text()))
	if err != nil {
		t.Fatalf("chattest: making a signer: %v", err)
	}
	l := &login{HS256: signer, users: users, passwords: make(map[string]string)}
	for name := range users {
		l.passwords[name] = rand.Text()
	}
	service, err := chat.New(l, opts...)
	if err != nil {
		t.Fatalf("chattest: making a service: %v", err)
	}
	server := httptest.NewServer(service)
	t.Cleanup(func() {
		// Sockets first: the server does not know of them. A test that ends wants
		// them cut off, not drained.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = service.Shutdown(ctx) // it reports sockets that it had to cut off
		server.Close()
	})
	return &Service{Service: service, URL: server.URL, t: t, login: l}
}

// Password returns the password of a user, which POST /login takes. It was made for
// this test. It ends the test if there is no such user.
func (s *Service) Password(username string) string {
	s.t.Helper()
	password, ok := s.login.passwords[username]
	if !ok {
		s.t.Fatalf("chattest: there is no user %q", username)
	}
	return password
}

// Token returns a new token of a user, as a login would. It ends the test if there is
// no such user.
func (s *Service) Token(username string) string {
	s.t.Helper()
	token, err := s.login.Login(context.Background(), username, s.Password(username))
	if err != nil {
		s.t.Fatalf("chattest: logging in as %q: %v", username, err)
	}
	return token.AccessToken
}

// login compares passwords as they are: hashing them takes longer than most tests.
type login struct {
	*chat.HS256
	users     Users
	passwords map[string]string // by user; not changed after the start
}

var _ chat.LoginProvider = (*login)(nil)

func (l *login) Login(_ context.Context, username, password string) (chat.Token, error) {
	want, ok := l.passwords[username]
	if !ok || subtle.ConstantTimeCompare([]byte(want), []byte(password)) == 0 {
		return chat.Token{}, fmt.Errorf("%w: wrong name or password", chat.ErrUnauthenticated)
	}
	return l.Issue(chat.User{Name: username, Role: l.users[username]})
}
