package chat_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/reto10/chat"
)

// haunted is a registry of several nodes, of which one has died: its sockets are
// counted until its lease ends.
type haunted struct {
	*chat.MemoryRegistry
	dead int // sockets of each user on the dead node
}

// Add implements chat.Registry.
func (r haunted) Add(ctx context.Context, s chat.Socket) (int, error) {
	n, err := r.MemoryRegistry.Add(ctx, s)
	return n + r.dead, err
}

// CountSockets implements chat.SocketCounter. A real one asks the other nodes.
func (r haunted) CountSockets(ctx context.Context, s chat.Socket) (int, error) {
	list, err := r.Connected(ctx, "")
	for _, p := range list {
		if p.User.Name == s.User().Name {
			return p.Connections, err
		}
	}
	return 0, err
}

// A registry that is a SocketCounter is asked before a user's socket is closed for
// being one too many: those of a node that has died are no reason.
func ExampleSocketCounter() {
	signer := must(chat.NewHS256(secret))
	service := must(chat.New(signer,
		chat.WithRegistry(haunted{chat.NewMemoryRegistry(), 2}), chat.WithSocketsPerUser(2)))
	server := httptest.NewServer(service)
	defer stop(service, server)

	token := must(signer.Issue(chat.User{Name: "ana"}))
	tab, phone := connect(server.URL+"/ws/chat", token.AccessToken), connect(server.URL+"/ws/chat", token.AccessToken)
	defer tab.close()
	defer phone.close()
	must(service.Broadcast(context.Background(), chat.Message{Sender: "ops", Content: "hello"}))
	fmt.Println("tab:", tab.next())
	fmt.Println("phone:", phone.next())
	// Output:
	// tab: ops: hello
	// phone: ops: hello
}

// central is a History that several nodes share, with the name of its data.
type central struct {
	chat.History
	name string // a real one reads it from the database that holds the messages
}

// Identity implements chat.SharedHistory.
func (h central) Identity(context.Context) (string, error) { return h.name, nil }

// A SharedHistory names its data. Nodes compare the names and refuse to work together
// when they differ.
func ExampleSharedHistory() {
	ctx := context.Background()
	memory := chat.NewMemoryHistory(chat.MemoryLimits{})
	var one, other chat.SharedHistory = central{memory, "orders-db/7f3a"}, central{memory, "test-db/09bc"}
	fmt.Println("the same data:", must(one.Identity(ctx)) == must(other.Identity(ctx)))
	// Output: the same data: false
}
