package chattest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
	"github.com/reto10/chat/client"
)

func TestServiceLogsItsUsersIn(t *testing.T) {
	s := chattest.NewService(t, chattest.Users{"ana": chat.RoleAdmin, "bob": ""})
	tests := map[string]struct {
		option client.Option
		want   error
	}{
		"with a password":       {client.WithLogin("bob", s.Password("bob")), nil},
		"with a wrong password": {client.WithLogin("bob", s.Password("ana")), client.ErrUnauthenticated},
		"as nobody":             {client.WithLogin("eva", "eva"), client.ErrUnauthenticated},
		"with a token":          {client.WithToken(s.Token("bob")), nil},
		"with another's token":  {client.WithToken(chattest.NewService(t, chattest.Users{"bob": ""}).Token("bob")), client.ErrUnauthenticated},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := client.Dial(t.Context(), s.URL, test.option)
			if !errors.Is(err, test.want) {
				t.Fatalf("Dial: %v, want %v", err, test.want)
			}
			if err == nil {
				_ = c.Close()
			}
		})
	}
}

func TestServiceGivesUsersTheirRoles(t *testing.T) {
	s := chattest.NewService(t, chattest.Users{"ana": chat.RoleAdmin, "bob": ""})
	for name, want := range map[string]error{"ana": nil, "bob": client.ErrForbidden} {
		c, err := client.Dial(t.Context(), s.URL, client.WithToken(s.Token(name)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Broadcast(t.Context(), "hello"); !errors.Is(err, want) {
			t.Errorf("%s broadcasts: %v, want %v", name, err, want)
		}
		_ = c.Close()
	}
}

func TestServiceTakesOptions(t *testing.T) {
	h := chat.NewMemoryHistory(chat.MemoryLimits{})
	s := chattest.NewService(t, nil, chat.WithHistory(h))
	sent, err := s.Broadcast(t.Context(), chat.Message{Sender: "ana", Content: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	last, err := h.Last(t.Context(), "")
	if diff := cmp.Diff(sent.Position, last); diff != "" || err != nil {
		t.Errorf("last position of the history (-want +got): %v\n%s", err, diff)
	}
}

func TestServiceEndsWithItsTest(t *testing.T) {
	var url string
	var c *client.Client
	t.Run("uses a service", func(t *testing.T) {
		s := chattest.NewService(t, chattest.Users{"bob": ""})
		url = strings.TrimPrefix(s.URL, "http://")
		var err error
		if c, err = client.Dial(t.Context(), s.URL, client.WithToken(s.Token("bob"))); err != nil {
			t.Fatal(err)
		}
	})
	defer c.Close()
	if conn, err := net.Dial("tcp", url); err == nil {
		_ = conn.Close()
		t.Error("the port still accepts connections")
	}
}

func TestServiceWithoutTheUserEndsTheTest(t *testing.T) {
	fake := new(exampleT)
	defer fake.end()
	s := chattest.NewService(fake, chattest.Users{"ana": ""})
	wantFatal(t, `there is no user "eva"`, func() { s.Token("eva") })
	wantFatal(t, `making a service`, func() { chattest.NewService(fake, nil, chat.WithMaxSockets(-1)) })
}

// wantFatal calls fn, which must end an exampleT with this text.
func wantFatal(t *testing.T, want string, fn func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
			t.Errorf("the test ended with %q, want %q", got, want)
		}
	}()
	fn()
}

func TestRecorderWaitsForEventsAndForTheClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := chattest.NewSocketRecorder(chat.User{Name: "bob"})
		want := []chat.Event{
			{Type: chat.EventMessage, Message: chat.Message{Content: "1"}},
			{Type: chat.EventMessage, Message: chat.Message{Content: "2"}},
		}
		go func() {
			for _, e := range want {
				<-time.After(time.Second)
				s.Deliver(e)
			}
			<-time.After(time.Second)
			s.Close(chat.CloseTooSlow, "too slow")
		}()
		if diff := cmp.Diff(want, s.WaitEvents(t, 2)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if got := time.Since(began); got != 2*time.Second {
			t.Errorf("waited for %v, want 2s: until the second event came", got)
		}
		if got := s.Closings(); len(got) > 0 {
			t.Errorf("closed already: %v", got)
		}
		if diff := cmp.Diff(chattest.Closing{Code: chat.CloseTooSlow, Reason: "too slow"}, s.WaitClosed(t)); diff != "" {
			t.Errorf("closed with (-want +got):\n%s", diff)
		}
		wantFatal(t, "the socket has 2 events of 3", func() { s.WaitEvents(new(exampleT), 3) })
		open := chattest.NewSocketRecorder(chat.User{Name: "bob"})
		wantFatal(t, "the socket is still open", func() { open.WaitClosed(new(exampleT)) })
	})
}

func TestRecordersInARegistry(t *testing.T) {
	registry := chat.NewMemoryRegistry()
	h := chat.NewMemoryHistory(chat.MemoryLimits{})
	chattest.NewService(t, nil, chat.WithRegistry(registry), chat.WithHistory(h)) // starts it
	ctx := context.Background()
	first, second := chattest.NewSocketRecorder(chat.User{Name: "bob"}), chattest.NewSocketRecorder(chat.User{Name: "bob"})
	if first.ID() == second.ID() {
		t.Errorf("two sockets have the id %q", first.ID())
	}
	for i, s := range []*chattest.SocketRecorder{first, second} {
		if n, err := registry.Add(ctx, s, 0); err != nil || n != i+1 {
			t.Fatalf("Add: %d, %v", n, err)
		}
	}
	if n, err := registry.CloseUser(ctx, "bob", 1, chat.CloseTooMany, "replaced"); err != nil || n != 1 {
		t.Fatalf("CloseUser: %d, %v", n, err)
	}
	if got := first.WaitClosed(t); got.Code != chat.CloseTooMany {
		t.Errorf("the oldest was closed with %v", got)
	}
	if got := second.Closings(); len(got) > 0 {
		t.Errorf("the newest was closed with %v", got)
	}
}
