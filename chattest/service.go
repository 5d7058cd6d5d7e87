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

// Users maps the names of a [Service]'s users to roles. "" is [chat.RoleUser].
type Users map[string]string

// Service is a [chat.Service] behind a server on loopback, with users who can log in, for
// tests of code that uses a service. Clients reach it over real sockets.
type Service struct {
	*chat.Service
	URL string // of the service, such as "http://127.0.0.1:40123"

	t     testing.TB
	login *login
}

// NewService starts a service with these users and options. It ends the test if the
// service cannot start. When the test ends, it shuts down the service, closes its sockets
// and frees its port. The test itself closes a registry or a history that it passed in the
// options.
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
		// Sockets first, because the server does not close hijacked connections. At the end of a
		// test they are cut off, not drained.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = service.Shutdown(ctx) // the error is about sockets that were cut off
		server.Close()
	})
	return &Service{Service: service, URL: server.URL, t: t, login: l}
}

// Password returns the password of a user, for POST /login. NewService generated it. It
// ends the test if there is no such user.
func (s *Service) Password(username string) string {
	s.t.Helper()
	password, ok := s.login.passwords[username]
	if !ok {
		s.t.Fatalf("chattest: there is no user %q", username)
	}
	return password
}

// Token returns a new token of a user, as a login does. It ends the test if there is no
// such user.
func (s *Service) Token(username string) string {
	s.t.Helper()
	token, err := s.login.Login(context.Background(), username, s.Password(username))
	if err != nil {
		s.t.Fatalf("chattest: logging in as %q: %v", username, err)
	}
	return token.AccessToken
}

// login compares passwords without hashing: a hash takes longer than most tests.
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
