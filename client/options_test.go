package client_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

func TestDialSaysWhatIsWrong(t *testing.T) {
	s := serve(t, chat.WithSocketsPerUser(1))
	s.dial("bob")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "https://" + free.Addr().String()
	free.Close()
	tests := []struct {
		name string
		url  string
		opts []client.Option
		want error
		text string
	}{
		{"a token that is none", s.url, []client.Option{client.WithToken("hunter2")}, client.ErrUnauthenticated, "401"},
		{"a channel of another's", s.url, []client.Option{client.WithToken(s.token("ana")), client.WithChannels("@bob")}, client.ErrForbidden, "403"},
		{"no channel", s.url, []client.Option{client.WithToken(s.token("ana")), client.WithChannels("no name")}, client.ErrInvalid, "no name"},
		{"no service", s.url + "/elsewhere", []client.Option{client.WithToken(s.token("ana"))}, client.ErrNotFound, "no such route"},
		{"too many sockets", s.url, []client.Option{client.WithToken(s.token("bob"))}, client.ErrRateLimited, "too many sockets"},
		{"no login", s.url, []client.Option{client.WithLogin("ana", "hunter2")}, client.ErrNotFound, `logging in as "ana"`},
		{"nobody there", nobody, []client.Option{client.WithToken(s.token("ana"))}, nil, "connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := client.Dial(within(t), tt.url, append(tt.opts, client.WithHTTPClient(s.http))...)
			if err == nil {
				c.Close()
				t.Fatal("no error")
			}
			if tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.text)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("a secret, or more than a line: %v", err)
			}
		})
	}
}

func TestOptionsSayWhatIsWrongWithThem(t *testing.T) {
	const good = "https://localhost:8443"
	token := client.WithToken("t")
	tests := []struct {
		name string
		url  string
		opts []client.Option
		want string // "": nothing is
	}{
		{"all is well", good, []client.Option{token}, ""},
		{"below a prefix", "http://localhost/chat/", []client.Option{token}, ""},
		{"no URL", "", []client.Option{token}, "begin with https:// or http://"},
		{"a host alone", "localhost:8443", []client.Option{token}, "begin with https:// or http://"},
		{"a WebSocket's", "wss://localhost", []client.Option{token}, "begin with https:// or http://"},
		{"no host", "https:///chat", []client.Option{token}, "names no host"},
		{"a password in the URL", "https://ana:hunter2@localhost", []client.Option{token}, "WithLogin"},
		{"a broken one with a password", "https://ana:hunter2@localhost:x", []client.Option{token}, "not a URL"},
		{"a query", "https://localhost?token=hunter2", []client.Option{token}, "without a query"},
		{"no credentials", good, nil, "WithLogin, WithToken or WithTokenSource is needed"},
		{"two of them", good, []client.Option{token, client.WithLogin("ana", "x")}, "not several"},
		{"nil", good, []client.Option{nil}, "an option is nil"},
		{"no password", good, []client.Option{client.WithLogin("ana", "")}, "WithLogin: "},
		{"no token", good, []client.Option{client.WithToken("")}, "WithToken: the token is empty"},
		{"a token with a line's end", good, []client.Option{client.WithToken("hunter2\n")}, "WithToken: "},
		{"no source", good, []client.Option{client.WithTokenSource(nil)}, "WithTokenSource: "},
		{"a channel twice", good, []client.Option{token, client.WithChannels("a", "b", "a")}, `WithChannels: "a" is given twice`},
		{"a channel without a name", good, []client.Option{token, client.WithChannels("")}, "WithChannels: "},
		{"more ids than channels", good, []client.Option{token, client.WithSince("1", "2", "3", "4"), client.WithChannels("a")}, "WithSince: 4 ids for 3 channels"},
		{"as many ids as channels", good, []client.Option{token, client.WithSince("1", "2", "3"), client.WithChannels("a")}, ""},
		{"no HTTP client", good, []client.Option{token, client.WithHTTPClient(nil)}, "WithHTTPClient: "},
		{"no backoff", good, []client.Option{token, client.WithBackoff(0, 1)}, "WithBackoff: "},
		{"a backoff that shrinks", good, []client.Option{token, client.WithBackoff(2, 1)}, "WithBackoff: "},
		{"no logger", good, []client.Option{token, client.WithLogger(nil)}, "WithLogger: "},
		{"no events", good, []client.Option{token, client.WithEventLimit(0, 1)}, "WithEventLimit: "},
		{"no bytes", good, []client.Option{token, client.WithEventLimit(1, 0)}, "WithEventLimit: "},
		{"a small read limit", good, []client.Option{token, client.WithReadLimit(1)}, "WithReadLimit: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := client.NewAPI(tt.url, tt.opts...)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), "client: ") || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret in %v", err)
			}
		})
	}
}
