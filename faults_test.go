package chat_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// faulty is a registry and a history that do something else first, when told to.
type faulty struct {
	*chat.MemoryRegistry
	*chat.MemoryHistory
	connect, join, joined, leave, broadcast func(channel string)
	after                                   func(ctx context.Context) error
	connected, joining                      error // what Connect and Join answer
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

// rest is the texts that a socket still gets, until it ends.
func (c *client) rest() (texts []string) {
	for {
		e, err := c.read()
		if err != nil {
			return texts
		}
		if e.Type == "message" {
			texts = append(texts, e.Content)
		}
	}
}

// Whatever closes a socket while it catches up, the last message it got is one
// that it can resume from.
func TestClosedWhileCatchingUpLeavesNoGap(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := serve(t, f.options()...)
	ids := s.publish("", "1", "2")
	s.dial("bob") // everyone's channel stays open
	f.join = func(string) { f.join = nil; s.publish("", "3, stored after the first page") }
	f.joined = func(channel string) {
		if channel != "" {
			return
		}
		f.joined = nil
		s.publish("", "4, live")
		_ = f.Flush(t.Context())
		if _, err := s.Disconnect(t.Context(), "ana"); err != nil {
			t.Error(err)
		}
		_ = f.Flush(t.Context())
	}
	got := s.dial("ana", "since", ids[0]).rest()
	if want := []string{"2", "3, stored after the first page", "4, live"}; len(got) > len(want) || !cmp.Equal(want[:len(got)], got) {
		t.Errorf("got %q, want a beginning of %q", got, want)
	}
}

func TestGoneWhileCatchingUpIsNotHidden(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{Count: 3})
	s := serve(t, f.options()...)
	ids := s.publish("", "1", "2")
	s.dial("bob")
	calls := 0
	f.after = func(context.Context) error {
		if calls++; calls == 2 { // it was asked whether all is kept; now it is read
			f.after = nil
			s.publish("", "a", "b", "c", "d", "e")
		}
		return nil
	}
	c := s.dial("ana", "since", ids[0])
	s.publish("", "live")
	if got := c.rest(); len(got) > 0 {
		t.Errorf("got %q behind what is lost", got)
	}
}

func TestWhatIsStoredAndNotYetHandedOnComesOnce(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := serve(t, f.options()...)
	s.dial("bob")
	ids := s.publish("", "0", "1")
	stored, handOn, handedOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.broadcast = func(content string) {
		if content == "2" {
			close(stored)
			<-handOn
		}
	}
	go func() {
		defer close(handedOn)
		s.publish("", "2")
	}()
	<-stored
	resumed := s.dial("ana", "since", ids[0])
	live := s.dial("eve")
	resumed.wantText("1")
	resumed.wantText("2")
	close(handOn)
	<-handedOn
	s.publish("", "3")
	resumed.wantText("3")
	live.wantText("2")
	live.wantText("3")
}

// What was read from the history before it was handed on does not come again to
// who leaves at that moment.
func TestLeavingBringsNothingTwice(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := serve(t, f.options()...)
	s.dial("bob", "channel", "news") // keeps the channel open
	id := s.publish("news", "0", "1")[0]
	stored, handOn, handedOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.broadcast = func(content string) {
		if content == "2" {
			close(stored)
			<-handOn
		}
	}
	go func() {
		defer close(handedOn)
		s.publish("news", "2")
	}()
	<-stored
	c := s.dial("ana")
	c.send(`{"type":"join","channel":"news","since":"` + id + `"}`)
	c.wantText("1")
	c.wantText("2")
	c.want("ack")
	f.leave = func(string) {
		f.leave = nil
		close(handOn)
		<-handedOn
		_ = f.Flush(t.Context())
	}
	c.send(`{"type":"leave","channel":"news"}`)
	c.want("ack")
}

func TestJoinThatFailsHalfWayEndsTheSocket(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := serve(t, f.options()...)
	ids := s.publish("news", "1", "2")
	s.dial("bob", "channel", "news")
	c := s.dial("ana")
	f.join = func(string) {
		f.join = nil
		s.publish("news", "3")
		f.after = func(context.Context) error { return errors.New("database down") }
	}
	c.send(`{"type":"join","channel":"news","since":"` + ids[0] + `"}`)
	c.wantText("2")
	c.wantClose(1001)
}

func TestPortThatPanicsEndsTheSocketAlone(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := serve(t, f.options()...)
	bob := s.dial("bob")
	id := s.publish("", "1", "2")[0]
	bob.wantText("1")
	bob.wantText("2")
	boom := func(string) { panic("a bug of the embedder's") }
	tests := map[string]func(){
		"connecting":  func() { f.connect = boom },
		"joining":     func() { f.join = boom },
		"catching up": func() { f.after = func(context.Context) error { panic("a bug, too") } },
	}
	for name, arm := range tests {
		t.Run(name, func(t *testing.T) {
			arm()
			conn, _, err := s.tryDial(s.token("ana"), dialOptions{query: map[string][]string{"since": {id}}})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			(&client{t: t, conn: conn}).wantClose(1001)
			eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 1 })
			f.connect, f.join, f.after = nil, nil, nil
		})
	}
	s.publish("", "alive")
	bob.wantText("alive")
}

func TestHistoryThatHangsHoldsNoHandshakeForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(chat.MemoryLimits{})
		s := servePipes(t, f.options()...)
		var query []string
		for i := range 6 {
			channel := fmt.Sprint("c", i)
			query = append(query, "channel", channel, "since", s.publish(channel, "1")[0])
		}
		f.after = func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		d := <-s.dialling("ana", query...)
		d.wantRefusal(t)
		if d.after > 6*time.Second {
			t.Errorf("held for %v", d.after)
		}
	})
}

func TestWhoWasToldOfAComingIsToldOfTheGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t, chat.WithPresenceLimit(2))
		watch, ghost := s.dial("watch"), s.dial("ghost")
		wantEvents(t, "below the limit", s.hear(watch), `user_joined watch/user in ""`, `user_joined ghost/user in ""`)
		third := s.dial("third")
		s.dial("fourth")
		wantEvents(t, "above it", s.hear(watch))
		ghost.hangUp()
		third.hangUp()
		wantEvents(t, "going", s.hear(watch), `user_left ghost/user in ""`)
	})
}

func TestConnectedShowsTheRoleOfTheRefreshedToken(t *testing.T) {
	s := serve(t)
	c := s.dial("ana")
	c.answer(`{"type":"refresh","token":"` + tokenFor(t, chat.User{Name: "ana", Role: "auditor"}, time.Hour) + `"}`)
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

// unwell is a registry that can hand nothing on, and says so when asked.
type unwell struct{ *chat.MemoryRegistry }

func (unwell) Check(context.Context) error { return errors.New("nobody answers") }

func TestNothingIsStoredThatCannotBeHandedOn(t *testing.T) {
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
	s := serve(t, chat.WithPolicy(countingPolicy{asked: &asked}))
	s.dialWith("ana", dialOptions{query: map[string][]string{"channel": strings.Split(strings.Repeat("a,", 1000)+"b", ",")}})
	if got := asked.Load(); got != 2 {
		t.Errorf("asked %d times for two channels", got)
	}
}

func TestPublishingOverHTTPIsLimitedLikeCommands(t *testing.T) {
	s := serve(t, chat.WithPolicy(countingPolicy{asked: new(atomic.Int32)}), chat.WithCommandRate(0.001, 3))
	for i := range 4 {
		resp, body := s.request("POST", "/messages", s.token("ana"), `{"content":"x"}`)
		if i < 3 && resp.StatusCode != 201 {
			t.Fatalf("message %d: %d %s, want 201", i, resp.StatusCode, body)
		}
		if i == 3 {
			wantProblem(t, resp, body, 429)
			if resp.Header.Get("Retry-After") == "" {
				t.Error("a 429 without Retry-After")
			}
		}
	}
	if resp, body := s.request("POST", "/messages", s.token("admin"), `{"content":"x"}`); resp.StatusCode != 201 {
		t.Errorf("an admin: %d %s, want 201", resp.StatusCode, body)
	}
}

// Whatever stands in the three places that a token travels in, the first that
// holds one decides, and none of it comes back in an answer.
func FuzzTokenExtraction(f *testing.F) {
	signer, err := chat.NewHS256(secret)
	if err != nil {
		f.Fatal(err)
	}
	service, err := chat.New(signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = service.Shutdown(context.Background()) })
	issued, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleUser})
	if err != nil {
		f.Fatal(err)
	}
	good := issued.AccessToken
	for _, seed := range [][3]string{
		{"Bearer GOOD", "", ""}, {"", "chat.v1, bearer.GOOD", ""}, {"", "", "GOOD"},
		{"Bearer bad", "bearer.GOOD", "GOOD"}, {"Basic YTpi", "", "GOOD"}, {"bearer  GOOD ", ",,", ""},
		{"Bearer", "bearer.", ""}, {"Bearer GOOD\x00", "bearer.GOOD.GOOD", "%"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, header, protocols, query string) {
		place := func(s string) string { return strings.ReplaceAll(s, "GOOD", good) }
		r := httptest.NewRequest("GET", "/messages", nil)
		r.URL.RawQuery = "token=" + place(query)
		r.Header["Authorization"] = []string{place(header)}
		r.Header["Sec-Websocket-Protocol"] = []string{place(protocols)}
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)

		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil || len(r.URL.Query()["token"]) > 1 {
			if w.Code != http.StatusBadRequest {
				t.Errorf("status %d for the query %q", w.Code, r.URL.RawQuery)
			}
			return
		}
		some := strings.Contains(header+protocols+r.URL.Query().Get("token"), "GOOD") || strings.Contains(place(header+protocols)+r.URL.Query().Get("token"), good)
		if w.Code == http.StatusOK && !some {
			t.Errorf("let in with %q, %q, %q", header, protocols, query)
		}
		if w.Code != http.StatusOK && w.Code != http.StatusUnauthorized {
			t.Errorf("status %d", w.Code)
		}
		if header == "Bearer GOOD" && w.Code != http.StatusOK {
			t.Errorf("a good header was refused: %s", w.Body)
		}
		if strings.Contains(w.Body.String(), good) {
			t.Errorf("the answer holds the token: %s", w.Body)
		}
	})
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
			s := serve(t, f.options()...)
			var texts []string
			for i := range 151 {
				texts = append(texts, fmt.Sprint(i))
			}
			ids := s.publish("news", texts...)
			join := func(last int) string {
				return `{"type":"join","channel":"news","since":"` + ids[last] + `"}`
			}
			c := s.dial("ana")
			tt.arm(f)
			c.send(join(0))
			got := c.restUntil(tt.sent)
			if tt.sent == 0 {
				c.want("error") // nothing came: it may be repeated
			} else {
				c.wantClose(1001)
			}
			f.after, f.joining = nil, nil
			if tt.sent > 0 {
				c = s.dial("ana")
			}
			c.send(join(tt.sent))
			got = append(got, c.restUntil(150-tt.sent)...)
			c.want("ack")
			if diff := cmp.Diff(texts[1:], got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}
