package redisregistry_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// startProgram starts a service as a program does that knows the registry alone: with
// no option besides those that are given.
func startProgram(t *testing.T, n *node, opts ...chat.Option) *chatNode {
	t.Helper()
	signer, err := chat.NewHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(signer, append(opts, chat.WithLogger(slog.New(slog.DiscardHandler)))...)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(service)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := service.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		server.Close()
	})
	return &chatNode{n, service, signer, server.URL}
}

// programs are how a service is given the registry.
var programs = map[string]func(r *redisregistry.Registry) []chat.Option{
	"the registry alone": func(r *redisregistry.Registry) []chat.Option {
		return []chat.Option{chat.WithRegistry(r)}
	},
	"with its history": func(r *redisregistry.Registry) []chat.Option {
		return []chat.Option{chat.WithRegistry(r), chat.WithHistory(r.History())}
	},
	"a registry that wraps it": func(r *redisregistry.Registry) []chat.Option {
		return []chat.Option{chat.WithRegistry(struct{ chat.Registry }{r})}
	},
	"a registry that embeds it": func(r *redisregistry.Registry) []chat.Option {
		return []chat.Option{chat.WithRegistry(struct{ *redisregistry.Registry }{r})}
	},
}

func TestTwoNodesDeliverEveryAcknowledgedMessage(t *testing.T) {
	t.Parallel()
	const messages = 100
	for name, options := range programs {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t)
			var nodes []*chatNode
			for range 2 {
				n := open(t, clientOf(s))
				nodes = append(nodes, startProgram(t, n, options(n.Registry)...))
			}
			clients, admins := make([]*wsClient, 2), make([]*wsClient, 2)
			for i, n := range nodes {
				clients[i], admins[i] = n.dial(t, fmt.Sprint("user", i), chat.RoleUser, ""), n.dial(t, fmt.Sprint("admin", i), chat.RoleAdmin, "")
				clients[i].next("welcome")
				admins[i].next("welcome")
			}
			var acked []string
			for i := range messages {
				admin := admins[i%2]
				admin.send(fmt.Sprintf(`{"type":"broadcast","content":"%d"}`, i))
				acked = append(acked, admin.next("ack", "error").ID)
			}
			for i, c := range clients {
				var got []string
				for range messages {
					got = append(got, c.next("message").ID)
				}
				if diff := cmp.Diff(acked, got); diff != "" {
					t.Errorf("on node %d (-acknowledged +delivered):\n%s", i, diff)
				}
			}

			// Resumed on the other node, with what was missed and without a loop of 4003.
			_ = clients[0].conn.CloseNow()
			admins[0].send(`{"type":"broadcast","content":"missed"}`)
			missed := admins[0].next("ack").ID
			again := nodes[1].dial(t, "user0", chat.RoleUser, "since="+acked[messages-1])
			if e := again.next("welcome"); e.Recovered == nil || !*e.Recovered {
				t.Errorf("welcome = %+v, want it recovered", e)
			}
			if e := again.next("message"); e.ID != missed {
				t.Errorf("resumed with %+v, want %s", e, missed)
			}
			admins[0].send(`{"type":"broadcast","content":"live"}`)
			if e, want := again.next("message"), admins[0].next("ack").ID; e.ID != want {
				t.Errorf("then got %+v, want %s", e, want)
			}
		})
	}
}

func TestAHistoryOfOneProcessIsRejected(t *testing.T) {
	s := redistest.Start(t)
	signer, err := chat.NewHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	n := open(t, clientOf(s))
	_, err = chat.New(signer, chat.WithRegistry(n.Registry), chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{})))
	if err == nil || !strings.Contains(err.Error(), "leave out chat.WithHistory") {
		t.Errorf("New = %v, want an error that names the option to leave out", err)
	}
	startProgram(t, n, chat.WithRegistry(n.Registry)) // the registry can be used all the same
	if _, err := chat.New(signer, chat.WithRegistry(n.Registry)); err == nil || !strings.Contains(err.Error(), "chat.WithRegistry") {
		t.Errorf("New with a registry of another service = %v, want an error that names the option", err)
	}
}

// The history that numbers the messages is the shared one, and is not served.
func TestTwoNodesWithoutHistoryHaveOneOrder(t *testing.T) {
	s := redistest.Start(t)
	var nodes []*chatNode
	for range 2 {
		n := open(t, clientOf(s))
		nodes = append(nodes, startProgram(t, n, chat.WithRegistry(n.Registry), chat.WithoutHistory()))
	}
	var clients []*wsClient
	for i, n := range nodes {
		clients = append(clients, n.dial(t, fmt.Sprint("user", i), chat.RoleUser, ""))
		clients[i].next("welcome")
	}
	var want []string
	for i := range 20 {
		m, err := nodes[i%2].service.Broadcast(t.Context(), chat.Message{Content: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, m.ID())
	}
	for i, c := range clients {
		var got []string
		for range want {
			got = append(got, c.next("message").ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("on node %d (-want +got):\n%s", i, diff)
		}
	}
	again, _, err := nodes[0].tryDial("user1", chat.RoleUser, "since="+want[0])
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close(websocket.StatusNormalClosure, "")
	if e := follow(t, again).next("welcome"); e.Recovered == nil || *e.Recovered {
		t.Errorf("welcome = %+v, want it not recovered", e)
	}
	if got := nodes[0].get(t, "/messages"); !strings.HasPrefix(got, "405") {
		t.Errorf("GET /messages: %s, want 405", got)
	}
}
