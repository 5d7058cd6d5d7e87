package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// faulty is a registry and a history that first call the functions that are set.
type faulty struct {
	*chat.MemoryRegistry
	*chat.MemoryHistory
	connect, join, joined, leave, broadcast func(channel string)
	after                                   func(ctx context.Context) error
	connected, joining                      error // what Add and Join return
}

func newFaulty(limits chat.MemoryLimits) *faulty {
	return &faulty{MemoryRegistry: chat.NewMemoryRegistry(), MemoryHistory: chat.NewMemoryHistory(limits)}
}

func (f *faulty) options() []chat.Option {
	return []chat.Option{chat.WithRegistry(f), chat.WithHistory(f), chat.WithPresence(chat.PresenceToNobody)}
}

func (f *faulty) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	if f.connect != nil {
		f.connect("")
	}
	if f.connected != nil {
		return 0, f.connected
	}
	return f.MemoryRegistry.Add(ctx, s, limit)
}

func (f *faulty) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	if f.join != nil {
		f.join(channel)
	}
	if f.joining != nil {
		return chat.Position{}, f.joining
	}
	p, err := f.MemoryRegistry.Join(ctx, s, channel)
	if f.joined != nil {
		f.joined(channel)
	}
	return p, err
}

func (f *faulty) Leave(ctx context.Context, s chat.Socket, channel string) error {
	if f.leave != nil {
		f.leave(channel)
	}
	return f.MemoryRegistry.Leave(ctx, s, channel)
}

func (f *faulty) Publish(ctx context.Context, msgs ...chat.Message) error {
	for _, m := range msgs {
		if f.broadcast != nil {
			f.broadcast(m.Content)
		}
	}
	return f.MemoryRegistry.Publish(ctx, msgs...)
}

func (f *faulty) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	if f.after != nil {
		if err := f.after(ctx); err != nil {
			return nil, err
		}
	}
	return f.MemoryHistory.After(ctx, channel, p, limit)
}

// readRest is the texts that a socket still gets, until it ends.
func readRest(c *chatserver.Client) (texts []string) {
	for {
		e, err := c.Read()
		if err != nil {
			return texts
		}
		if e.Type == "message" {
			texts = append(texts, e.Content)
		}
	}
}

// A socket may be closed at any moment of its replay. It can resume from the last message
// that it received.
func TestASocketClosedDuringItsReplayHasNoGap(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	ids := s.Publish("", "1", "2")
	s.Dial("bob") // everyone's channel stays open
	f.join = func(string) { f.join = nil; s.Publish("", "3, stored after the first page") }
	f.joined = func(channel string) {
		if channel != "" {
			return
		}
		f.joined = nil
		s.Publish("", "4, live")
		_ = f.Flush(t.Context())
		if _, err := s.Disconnect(t.Context(), "ana"); err != nil {
			t.Error(err)
		}
		_ = f.Flush(t.Context())
	}
	got := readRest(s.Dial("ana", "since", ids[0]))
	if want := []string{"2", "3, stored after the first page", "4, live"}; len(got) > len(want) || !cmp.Equal(want[:len(got)], got) {
		t.Errorf("got %q, want a beginning of %q", got, want)
	}
}

func TestMessagesLostDuringAReplayAreNotHidden(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{Count: 150})
	s := chatserver.Serve(t, f.options()...)
	var texts []string
	for i := range 151 {
		texts = append(texts, fmt.Sprint(i))
	}
	ids := s.Publish("", texts...)
	s.Dial("bob")
	calls := 0
	f.after = func(context.Context) error {
		if calls++; calls == 2 { // a page of 100 messages is read; now the next one is
			f.after = nil
			for i := range 150 {
				s.Publish("", fmt.Sprint("more ", i))
			}
		}
		return nil
	}
	c := s.Dial("ana", "since", ids[0])
	s.Publish("", "live")
	if diff := cmp.Diff(texts[1:101], readRest(c)); diff != "" {
		t.Errorf("messages before the loss (-want +got):\n%s", diff)
	}
	// The client learns by its next welcome that messages are missing, though the pages from
	// before the loss may still be kept.
	f.after = nil
	for _, id := range []string{ids[0], ids[100]} {
		if c := s.Dial("ana", "since", id); c.Welcome.Recovered == nil || *c.Welcome.Recovered {
			t.Errorf("welcome = %+v, want not recovered", c.Welcome)
		}
	}
}

func TestMessagesStoredAndNotYetPublishedArriveOnce(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	s.Dial("bob")
	ids := s.Publish("", "0", "1")
	stored, publish, published := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.broadcast = func(content string) {
		if content == "2" {
			close(stored)
			<-publish
		}
	}
	go func() {
		defer close(published)
		s.Publish("", "2")
	}()
	<-stored
	resumed := s.Dial("ana", "since", ids[0])
	live := s.Dial("eve")
	resumed.WantText("1")
	resumed.WantText("2")
	close(publish)
	<-published
	s.Publish("", "3")
	resumed.WantText("3")
	live.WantText("2")
	live.WantText("3")
}

// A socket has read a message from the history, and leaves while the message is
// published. It does not receive the message again.
func TestLeavingBringsNothingTwice(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	s.Dial("bob", "channel", "news") // keeps the channel open
	id := s.Publish("news", "0", "1")[0]
	stored, publish, published := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.broadcast = func(content string) {
		if content == "2" {
			close(stored)
			<-publish
		}
	}
	go func() {
		defer close(published)
		s.Publish("news", "2")
	}()
	<-stored
	c := s.Dial("ana")
	c.Send(`{"type":"join","channel":"news","since":"` + id + `"}`)
	c.WantText("1")
	c.WantText("2")
	c.Want("ack")
	f.leave = func(string) {
		f.leave = nil
		close(publish)
		<-published
		_ = f.Flush(t.Context())
	}
	c.Send(`{"type":"leave","channel":"news"}`)
	c.Want("ack")
}

func TestJoinThatFailsHalfWayEndsTheSocket(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	ids := s.Publish("news", "1", "2")
	s.Dial("bob", "channel", "news")
	c := s.Dial("ana")
	f.join = func(string) {
		f.join = nil
		s.Publish("news", "3")
		f.after = func(context.Context) error { return errors.New("database down") }
	}
	c.Send(`{"type":"join","channel":"news","since":"` + ids[0] + `"}`)
	c.WantText("2")
	c.WantClose(1001)
}

func TestPortThatPanicsEndsTheSocketAlone(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	bob := s.Dial("bob")
	boom := func(string) { panic("a bug of the embedder's") }
	tests := map[string]func(){
		"connecting": func() { f.connect = boom },
		"joining":    func() { f.join = boom },
		"replaying":  func() { f.after = func(context.Context) error { panic("a bug, too") } },
	}
	for name, arm := range tests {
		t.Run(name, func(t *testing.T) {
			id := s.Publish(name, "1", "2")[0] // of a channel that was not read before
			arm()
			query := chatserver.Values([]string{"channel", name, "since", id})
			conn, _, err := s.TryDial(s.Token("ana"), chatserver.DialOptions{Query: query})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			(&chatserver.Client{T: t, Conn: conn}).WantClose(1001)
			wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 1 })
			f.connect, f.join, f.after = nil, nil, nil
		})
	}
	s.Publish("", "alive")
	bob.WantText("alive")
}

func TestHistoryThatHangsHoldsNoHandshakeForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(chat.MemoryLimits{})
		s := chatserver.ServePipes(t, f.options()...)
		var query []string
		for i := range 6 {
			channel := fmt.Sprint("c", i)
			query = append(query, "channel", channel, "since", s.Publish(channel, "1")[0])
		}
		f.after = func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		d := <-dialling(s, "ana", query...)
		d.wantRefusal(t)
		if d.after > 6*time.Second {
			t.Errorf("held for %v", d.after)
		}
	})
}

func TestALeaveIsAnnouncedToThoseWhoReceivedTheJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t, chat.WithPresenceLimit(2))
		watch, ghost := s.Dial("watch"), s.Dial("ghost")
		chatserver.WantPresence(t, "below the limit", s.HearPresence(watch), `user_joined watch/user in ""`, `user_joined ghost/user in ""`)
		third := s.Dial("third")
		s.Dial("fourth")
		chatserver.WantPresence(t, "above it", s.HearPresence(watch))
		ghost.HangUp()
		third.HangUp()
		chatserver.WantPresence(t, "two have left", s.HearPresence(watch), `user_left ghost/user in ""`)
	})
}

func TestConnectedShowsTheRoleOfTheRefreshedToken(t *testing.T) {
	s := chatserver.Serve(t)
	c := s.Dial("ana")
	c.Answer(`{"type":"refresh","token":"` + chatserver.TokenFor(t, chat.User{Name: "ana", Role: "auditor"}, time.Hour) + `"}`)
	list, err := s.Connected(t.Context(), "")
	if err != nil || len(list) != 1 || list[0].User.Role != "auditor" {
		t.Errorf("connected = %v (%v), want ana as auditor", list, err)
	}
}

// countingPolicy counts what it is asked.
type countingPolicy struct {
	chat.DefaultPolicy
	asked *atomic.Int32
}

func (p countingPolicy) Join(context.Context, chat.Identity, string) error {
	p.asked.Add(1)
	return nil
}

func (countingPolicy) Publish(context.Context, chat.Identity, string) error { return nil }

// unwell is a registry that cannot publish, and whose Check says so.
type unwell struct{ *chat.MemoryRegistry }

func (unwell) Check(context.Context) error { return errors.New("nobody answers") }

func TestNothingIsStoredThatCannotBePublished(t *testing.T) {
	history := chat.NewMemoryHistory(chat.MemoryLimits{})
	signer, err := chat.NewHS256([]byte(strings.Repeat("k", chat.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(signer, chat.WithRegistry(unwell{chat.NewMemoryRegistry()}), chat.WithHistory(history))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Shutdown(t.Context())
	if _, err := service.Broadcast(t.Context(), chat.Message{Content: "hello"}); !errors.Is(err, chat.ErrUnavailable) {
		t.Errorf("Broadcast: %v, want %v", err, chat.ErrUnavailable)
	}
	stored, err := history.After(t.Context(), "", chat.Position{}, chat.Limit{Count: 10})
	if err != nil || len(stored) > 0 {
		t.Errorf("stored %v, %v, want nothing", stored, err)
	}
}

func TestPolicyIsAskedOnceForAChannel(t *testing.T) {
	var asked atomic.Int32
	s := chatserver.Serve(t, chat.WithPolicy(countingPolicy{asked: &asked}))
	s.DialWith("ana", chatserver.DialOptions{Query: map[string][]string{"channel": strings.Split(strings.Repeat("a,", 1000)+"b", ",")}})
	if got := asked.Load(); got != 2 {
		t.Errorf("asked %d times for two channels", got)
	}
}

func TestPublishingOverHTTPIsLimitedLikeCommands(t *testing.T) {
	s := chatserver.Serve(t, chat.WithPolicy(countingPolicy{asked: new(atomic.Int32)}), chat.WithCommandRate(0.001, 3))
	for i := range 4 {
		resp, body := s.Request("POST", "/messages", s.Token("ana"), `{"content":"x"}`)
		if i < 3 && resp.StatusCode != 201 {
			t.Fatalf("message %d: %d %s, want 201", i, resp.StatusCode, body)
		}
		if i == 3 {
			chatserver.WantProblem(t, resp, body, 429)
			if resp.Header.Get("Retry-After") == "" {
				t.Error("a 429 without Retry-After")
			}
		}
	}
	if resp, body := s.Request("POST", "/messages", s.Token("admin"), `{"content":"x"}`); resp.StatusCode != 201 {
		t.Errorf("an admin: %d %s, want 201", resp.StatusCode, body)
	}
}

// A join that fails behind a part of its replay ends the socket: the same join again
// would bring that part twice. The client resumes from what it got.
func TestJoinThatFailsBehindAPartOfItsReplayBringsNothingTwice(t *testing.T) {
	down := errors.New("down")
	tests := []struct {
		name string
		arm  func(f *faulty)
		sent int // before it fails
	}{
		{"the first page", func(f *faulty) { f.after = func(context.Context) error { return down } }, 0},
		{"a later page", func(f *faulty) {
			pages := 0
			f.after = func(context.Context) error {
				if pages++; pages > 1 {
					return down
				}
				return nil
			}
		}, 100},
		{"the registry", func(f *faulty) { f.joining = down }, 150},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFaulty(chat.MemoryLimits{})
			s := chatserver.Serve(t, f.options()...)
			var texts []string
			for i := range 151 {
				texts = append(texts, fmt.Sprint(i))
			}
			ids := s.Publish("news", texts...)
			join := func(last int) string {
				return `{"type":"join","channel":"news","since":"` + ids[last] + `"}`
			}
			c := s.Dial("ana")
			tt.arm(f)
			c.Send(join(0))
			got := restUntil(c, tt.sent)
			if tt.sent == 0 {
				c.Want("error") // nothing came: it may be repeated
			} else {
				c.WantClose(1001)
			}
			f.after, f.joining = nil, nil
			if tt.sent > 0 {
				c = s.Dial("ana")
			}
			c.Send(join(tt.sent))
			got = append(got, restUntil(c, 150-tt.sent)...)
			c.Want("ack")
			if diff := cmp.Diff(texts[1:], got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

// forgetful panics when a socket has been added, if counting is set, or removed, if
// disconnecting is set.
type forgetful struct {
	*chat.MemoryRegistry
	counting, disconnecting bool
	last                    atomic.Pointer[weak.Pointer[byte]] // to the last socket
	disconnected            atomic.Int32
}

func (r *forgetful) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	p := weak.Make((*byte)(reflect.ValueOf(s).UnsafePointer()))
	r.last.Store(&p)
	n, err := r.MemoryRegistry.Add(ctx, s, limit)
	if r.counting {
		panic("a bug of the embedder's")
	}
	return n, err
}

func (r *forgetful) Remove(ctx context.Context, s chat.Socket) error {
	err := r.MemoryRegistry.Remove(ctx, s)
	r.disconnected.Add(1)
	if r.disconnecting {
		panic("a bug of the embedder's")
	}
	return err
}

// A panic while a socket is added or removed leaves no reference to it.
func TestNothingKeepsASocketWhoseRegistryPanicked(t *testing.T) {
	for name, registry := range map[string]*forgetful{
		"disconnecting": {MemoryRegistry: chat.NewMemoryRegistry(), disconnecting: true},
		"counting":      {MemoryRegistry: chat.NewMemoryRegistry(), counting: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := chatserver.Serve(t, chat.WithRegistry(registry))
			d := <-dialling(s, "ana")
			if d.err == nil {
				_ = d.conn.CloseNow()
			}
			wstest.Eventually(t, "the socket to be disconnected", func() bool { return registry.disconnected.Load() == 1 && s.Stats().Sockets == 0 })
			wstest.Eventually(t, "the socket to be forgotten", func() bool {
				runtime.GC()
				return registry.last.Load().Value() == nil
			})
		})
	}
}
