package chat_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// embedders are registries that embed another one and override nothing.
var embedders = map[string]func() chat.Registry{
	"a MemoryRegistry":               func() chat.Registry { return chat.NewMemoryRegistry() },
	"embedding a *MemoryRegistry":    func() chat.Registry { return struct{ *chat.MemoryRegistry }{chat.NewMemoryRegistry()} },
	"embedding the interface":        func() chat.Registry { return struct{ chat.Registry }{chat.NewMemoryRegistry()} },
	"a pointer around the interface": func() chat.Registry { return &struct{ chat.Registry }{chat.NewMemoryRegistry()} },
}

func TestARegistryThatEmbedsAnotherLosesNothing(t *testing.T) {
	for name, registry := range embedders {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := chatserver.ServePipes(t, chat.WithRegistry(registry()))
				watch := s.Dial("watch", "channel", "news")
				chatserver.WantPresence(t, "on connecting", s.HearPresence(watch), `user_joined watch/user in ""`, `user_joined watch/user in "news"`)
				ana := s.Dial("ana", "channel", "news")
				chatserver.WantPresence(t, "when ana connected", s.HearPresence(watch), `user_joined ana/user in ""`, `user_joined ana/user in "news"`)

				s.Publish("news", "1")
				s.Publish("@ana", "2")
				last := wantMessages(ana, t, "end of presence", "1", "2")
				ana.HangUp()
				synctest.Wait() // until the service has noticed
				s.Publish("news", "3")
				s.Publish("@ana", "4")
				again := s.Dial("ana", "channel", "news", "since", last["news"], "since", last["@ana"])
				if r := again.Welcome.Recovered; r == nil || !*r {
					t.Errorf("resumed with recovered = %v, want true", r)
				}
				wantMessages(again, t, "3", "4")
				s.Publish("news", "5")
				wantMessages(again, t, "5")

				list, err := s.Connected(t.Context(), "@ana")
				if err != nil || len(list) != 1 || list[0].User.Name != "ana" || list[0].Connections != 1 {
					t.Errorf(`Connected("@ana") = %+v, %v, want ana with one socket`, list, err)
				}
				st := s.Stats()
				if st.Users != 2 || st.Deliveries == 0 || st.FanOut.Count == 0 {
					t.Errorf("stats: %d users, %d deliveries, %d times of fan-out, want 2 and more than none", st.Users, st.Deliveries, st.FanOut.Count)
				}
			})
		})
	}
}

// wantMessages reads messages until all of these came, in their order within a channel,
// and returns the last id of each channel.
func wantMessages(c *chatserver.Client, t *testing.T, contents ...string) (last map[string]string) {
	t.Helper()
	last = make(map[string]string)
	missing := make(map[string]bool)
	for _, text := range contents {
		missing[text] = true
	}
	for len(missing) > 0 {
		e := c.Want("message")
		delete(missing, e.Content)
		last[e.Channel] = e.ID
	}
	return last
}

// wrapping wraps the sockets that are added, and passes the others on as they are.
type wrapping struct {
	chat.Registry
	wrap func(chat.Socket) chat.Socket
}

func (r wrapping) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	return r.Registry.Add(ctx, r.wrap(s), limit)
}

// passing wraps a socket and changes nothing. As a value it cannot be compared.
type passing struct {
	chat.Socket
	labels []string
}

// shouting changes the messages.
type shouting struct{ chat.Socket }

func (s shouting) Deliver(e chat.Event) {
	e.Message.Content = strings.ToUpper(e.Message.Content)
	s.Socket.Deliver(e)
}

func TestSocketsMayBeWrapped(t *testing.T) {
	tests := map[string]struct {
		wrap func(chat.Socket) chat.Socket
		want string
	}{
		"by a pointer":                  {func(s chat.Socket) chat.Socket { return &passing{s, nil} }, "hello"},
		"by a value without comparison": {func(s chat.Socket) chat.Socket { return passing{s, []string{"tab"}} }, "hello"},
		"twice":                         {func(s chat.Socket) chat.Socket { return &passing{passing{s, nil}, nil} }, "hello"},
		"by one that changes events":    {func(s chat.Socket) chat.Socket { return shouting{s} }, "HELLO"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := chatserver.Serve(t, chat.WithRegistry(wrapping{chat.NewMemoryRegistry(), tt.wrap}))
			var clients []*chatserver.Client
			for range 2 { // of one user
				c := s.Dial("ana")
				clients = append(clients, c)
				c.Answer(`{"type":"join","channel":"news"}`)
				s.Publish("news", "hello")
				c.WantText(tt.want)
				if e := c.Answer(`{"type":"leave","channel":"news"}`); e.Type != "ack" {
					t.Errorf("leaving: %+v", e)
				}
				s.Publish("news", "after it")
				ids := s.Publish("", "hello")
				if e := c.WantText(tt.want); e.ID != ids[0] {
					t.Errorf("got %s, want %s", e.ID, ids[0])
				}
			}
			if n, err := s.Disconnect(t.Context(), "ana"); err != nil || n != 2 {
				t.Errorf("disconnected %d, %v, want 2", n, err)
			}
			for _, c := range clients {
				c.WantClose(4002)
			}
			wstest.Eventually(t, "the sockets to be gone", func() bool { return s.Stats().Users == 0 })
		})
	}
}

// Sockets whose wrapper changes nothing share the frame that was encoded once: they cost
// no allocation of the message's size each.
func TestAMessageIsEncodedOnceForWrappedSockets(t *testing.T) {
	const sockets, rounds, size = 20, 10, 32 << 10
	content := strings.Repeat("x", size)
	allocated := func(t *testing.T, wrap func(chat.Socket) chat.Socket) uint64 {
		registry := wrapping{chat.NewMemoryRegistry(), wrap}
		s := chatserver.Serve(t, chat.WithRegistry(registry), chat.WithPresence(chat.PresenceToNobody), chat.WithSocketsPerUser(sockets))
		for range sockets {
			p := s.DialRaw(t, "ana")
			go func() { _, _ = io.Copy(io.Discard, p.Conn) }() // ends with the connection
		}
		publish := func() {
			s.Publish("", content)
			if err := registry.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		publish() // what the first one makes is kept
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			publish()
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	plain := allocated(t, func(s chat.Socket) chat.Socket { return s })
	wrapped := allocated(t, func(s chat.Socket) chat.Socket { return &passing{s, nil} })
	if each := uint64(sockets * rounds * size); wrapped > plain+each/4 {
		t.Errorf("%d bytes allocated with wrapped sockets, %d without; encoded for each socket it would be %d", wrapped, plain, each)
	}
}

// brittle panics for a certain message and, if closing is set, when it is closed.
type brittle struct {
	chat.Socket
	closing bool
}

func (s brittle) Deliver(e chat.Event) {
	if e.Message.Content == "fragile" {
		panic("a bug of the embedder's")
	}
	s.Socket.Deliver(e)
}

func (s brittle) Close(code chat.CloseCode, reason string) {
	s.Socket.Close(code, reason)
	if s.closing {
		panic("another bug of the embedder's")
	}
}

func TestAWrapperThatPanicsEndsItsSocketAlone(t *testing.T) {
	for _, closing := range []bool{false, true} {
		t.Run(fmt.Sprint("also in Close: ", closing), func(t *testing.T) {
			wrap := func(s chat.Socket) chat.Socket {
				if s.User().Name == "ana" {
					return brittle{s, closing}
				}
				return s
			}
			s := chatserver.Serve(t, chat.WithRegistry(wrapping{chat.NewMemoryRegistry(), wrap}), chat.WithPresence(chat.PresenceToNobody))
			ana, bob := s.Dial("ana"), s.Dial("bob")
			s.Publish("", "before")
			ana.WantText("before")
			s.Publish("", "fragile")
			ana.WantClose(1001)
			s.Publish("", "after it")
			for _, text := range []string{"before", "fragile", "after it"} {
				bob.WantText(text)
			}
			wstest.Eventually(t, "ana's socket to be gone", func() bool { return s.Stats().Users == 1 })
			again := s.Dial("ana")
			if n, err := s.Disconnect(t.Context(), "ana"); err != nil || n != 1 {
				t.Errorf("disconnected %d, %v, want 1", n, err)
			}
			again.WantClose(4002)
		})
	}
}

// unstartable is a registry that does not start.
type unstartable struct {
	*chat.MemoryRegistry
	err error
}

func (r unstartable) Start(_ chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	changed(chat.PresenceChange{User: chat.User{Name: "ana"}, Joined: true, Size: 1, JoinSize: 1})
	return nil, r.err
}

func TestNewFailsWhenTheRegistryDoesNotStart(t *testing.T) {
	signer, err := chat.NewHS256(chatserver.Secret)
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("these nodes share no history: leave out WithHistory")
	used := chat.NewMemoryRegistry()
	first, err := chat.New(signer, chat.WithRegistry(used))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Shutdown(t.Context())
	for name, tt := range map[string]struct {
		registry chat.Registry
		want     string
	}{
		"with an error":          {unstartable{chat.NewMemoryRegistry(), refused}, refused.Error()},
		"without a history":      {unstartable{chat.NewMemoryRegistry(), nil}, "WithHistory"},
		"serves another service": {used, "WithRegistry"},
	} {
		t.Run(name, func(t *testing.T) {
			service, err := chat.New(signer, chat.WithRegistry(tt.registry))
			if err == nil {
				_ = service.Shutdown(t.Context())
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not name %q", err, tt.want)
			}
			if tt.want == refused.Error() && !errors.Is(err, refused) {
				t.Errorf("error %q does not wrap the registry's", err)
			}
		})
	}
}

// The order of messages comes from the history that the registry chooses.
func TestWithoutHistoryOnAnyRegistry(t *testing.T) {
	for name, registry := range embedders {
		t.Run(name, func(t *testing.T) {
			s := chatserver.Serve(t, chat.WithRegistry(registry()), chat.WithoutHistory())
			c := s.Dial("ana")
			var got []string
			for i := range 3 {
				s.Publish("", fmt.Sprint(i))
				got = append(got, c.Want("message").Content)
			}
			if diff := cmp.Diff([]string{"0", "1", "2"}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if resp, _ := s.Request("GET", "/messages", s.Token("ana"), ""); resp.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("GET /messages: %s, want 405", resp.Status)
			}
		})
	}
}

func TestEventsAreComparedByWhatTheySay(t *testing.T) {
	e := chat.Event{Type: chat.EventMessage, Message: chat.Message{Content: "hello", Time: time.Unix(1, 0)}}
	other := e
	other.Message.Content = "hallo"
	if !e.Equal(e) || e.Equal(other) {
		t.Errorf("Equal = %t of the same and %t of another event", e.Equal(e), e.Equal(other))
	}
}
