package chattest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
	"github.com/reto10/chat/client"
)

// exampleT replaces the *testing.T of a test function.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func (*exampleT) Helper()                           {}
func (*exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *exampleT) Cleanup(fn func())               { t.cleanups = append(t.cleanups, fn) }

func (t *exampleT) end() {
	for _, fn := range t.cleanups {
		fn()
	}
}

// Test your own client with a real service, over real sockets.
func ExampleNewService() {
	t := new(exampleT) // in a test: func TestMyClient(t *testing.T)
	defer t.end()

	s := chattest.NewService(t, chattest.Users{"ana": chat.RoleAdmin, "bob": ""})
	bob, err := client.Dial(context.Background(), s.URL, client.WithLogin("bob", s.Password("bob")))
	if err != nil {
		t.Fatalf("bob: %v", err)
	}
	defer bob.Close()

	if _, err := s.Broadcast(context.Background(), chat.Message{Sender: "ana", Content: "lunch is ready"}); err != nil {
		t.Fatalf("ana: %v", err)
	}
	for event, err := range bob.Events(context.Background()) {
		if err != nil {
			t.Fatalf("bob: %v", err)
		}
		if m, ok := event.(client.Message); ok {
			fmt.Printf("%s: %s\n", m.Sender, m.Content)
			break
		}
	}
	// Output: ana: lunch is ready
}

// Test your own registry without a service.
func ExampleSocketRecorder() {
	t := new(exampleT) // in a test: func TestMyRegistry(t *testing.T)
	defer t.end()

	ctx := context.Background()
	registry := chat.NewMemoryRegistry() // your own
	bob := chattest.NewSocketRecorder(chat.User{Name: "bob"})
	if _, err := registry.Add(ctx, bob, 0); err != nil {
		t.Fatalf("adding a socket: %v", err)
	}
	if _, err := registry.Join(ctx, bob, "ops"); err != nil {
		t.Fatalf("joining: %v", err)
	}

	registry.Announce("ops", false, []chat.Event{{Type: chat.EventUserJoined, User: chat.User{Name: "ana"}, Channel: "ops"}})
	fmt.Println(bob.WaitEvents(t, 1)[0].User.Name, "joined")

	if _, err := registry.CloseUser(ctx, "bob", 0, chat.CloseDisconnected, "by an admin"); err != nil {
		t.Fatalf("closing bob's sockets: %v", err)
	}
	fmt.Println(bob.WaitClosed(t))
	// Output:
	// ana joined
	// {4002 by an admin}
}
