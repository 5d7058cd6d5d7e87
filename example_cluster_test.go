package chat_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/reto10/chat"
)

// haunted is a registry of several nodes, of which one has died. Its sockets are counted
// until its lease ends.
type haunted struct {
	*chat.MemoryRegistry
	dead int // sockets of each user on the dead node
}

// Add implements chat.Registry. Where the number matters it leaves out the sockets of
// nodes that do not answer. A real one asks them.
func (r haunted) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	n, err := r.MemoryRegistry.Add(ctx, s, limit)
	if err == nil && limit > 0 && n+r.dead > limit {
		return n, nil
	}
	return n + r.dead, err
}

// Add counts only connected sockets before it says that a user has too many: those of a
// node that has died must not keep the user out.
func ExampleRegistry_add() {
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
