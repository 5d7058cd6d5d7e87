package chat_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
)

func TestFramesThatAreNotTextCloseTheSocket(t *testing.T) {
	s := serve(t, chat.WithReadLimit(1000), chat.WithContentLimit(1000))
	tests := map[string]struct {
		typ  websocket.MessageType
		data string
		code int
	}{
		"binary":            {websocket.MessageBinary, "x", 1003},
		"not UTF-8":         {websocket.MessageText, "a\xff", 1007},
		"cut-off UTF-8":     {websocket.MessageText, "é"[:1], 1007},
		"over the limit":    {websocket.MessageText, strings.Repeat("x", 1001), 1009},
		"far over it":       {websocket.MessageText, strings.Repeat("x", 100_000), 1009},
		"just at the limit": {websocket.MessageText, strings.Repeat("x", 1000), 0},
	}
	listener := s.dial("listener")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := s.dialWith("admin", dialOptions{raw: true})
			if err := c.conn.Write(t.Context(), tt.typ, []byte(tt.data)); err != nil {
				t.Fatal(err)
			}
			if tt.code == 0 {
				c.wantText(tt.data)
				listener.wantText(tt.data)
				return
			}
			c.wantClose(tt.code)
		})
	}
	s.publish("", "nothing else came")
	listener.wantText("nothing else came")
}

func TestSocketsOfOneUserAreBounded(t *testing.T) {
	s := serve(t, chat.WithSocketsPerUser(2))
	first, _ := s.dial("ana"), s.dial("ana")
	(<-s.dialling("ana")).wantRefusedWith(t, http.StatusTooManyRequests)
	s.dial("bob")
	first.hangUp()
	eventually(t, "room for another", func() bool { return s.Stats().Sockets == 2 })
	s.dial("ana")
}

func TestOldestSocketIsReplacedWhenAsked(t *testing.T) {
	s := serve(t, chat.WithSocketsPerUser(2), chat.WithReplaceOldest())
	first, second := s.dial("ana"), s.dial("ana")
	third := s.dial("ana")
	first.wantClose(4004)
	s.publish("", "x")
	second.wantText("x")
	third.wantText("x")
}

func TestSocketsInAllAreBounded(t *testing.T) {
	s := serve(t, chat.WithMaxSockets(2))
	a := s.dial("ana")
	s.dial("bob")
	resp, body := s.request("GET", "/ws/chat", s.token("eve"), "", upgradeHeaders...)
	wantProblem(t, resp, body, 503)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("a 503 without Retry-After")
	}
	a.hangUp()
	eventually(t, "room for another", func() bool { return s.Stats().Sockets == 1 })
	s.dial("eve")
}

func TestChannelsOfOneSocketAreBounded(t *testing.T) {
	s := serve(t, chat.WithChannelsPerSocket(2))
	c := s.dial("ana", "channel", "a", "channel", "b", "channel", "a")
	if got := c.answer(`{"type":"join","channel":"c"}`); got.Code != "invalid" {
		t.Errorf("a third channel: %+v, want invalid", got)
	}
	if got := c.answer(`{"type":"join","channel":"b"}`); got.Type != "ack" {
		t.Errorf("one that is joined: %+v, want an ack", got)
	}
	c.answer(`{"type":"leave","channel":"a"}`)
	if got := c.answer(`{"type":"join","channel":"c"}`); got.Type != "ack" {
		t.Errorf("after leaving one: %+v, want an ack", got)
	}
	resp, body := s.request("GET", "/ws/chat?channel=a&channel=b&channel=c", s.token("ana"), "", upgradeHeaders...)
	wantProblem(t, resp, body, 400)
}

func TestCommandsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t, chat.WithChannelsPerSocket(1))
		c := s.dial("ana", "channel", "c") // no join is free
		join := `{"type":"join","channel":"c","ref":5}`
		for i := range 40 {
			if got := c.answer(join); got.Type != "ack" {
				t.Fatalf("command %d: %+v, want an ack", i, got)
			}
		}
		if got := c.answer(join); got.Code != "rate_limited" || string(got.Ref) != "5" {
			t.Fatalf("after the burst: %+v, want rate_limited with its ref", got)
		}
		<-time.After(time.Second)
		for i := range 20 {
			if got := c.answer(join); got.Type != "ack" {
				t.Fatalf("command %d of the next second: %+v, want an ack", i, got)
			}
		}
		// Who goes on regardless is warned, and then closed.
		go func() {
			for {
				if c.conn.Write(t.Context(), websocket.MessageText, []byte(join)) != nil {
					return
				}
			}
		}()
		c.wantClose(4005)
	})
}

func TestAdminsCommandsAreLimitedWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, limited := servePipes(t), servePipes(t, chat.WithAdminCommandRate(1, 2))
		a, b := free.dial("admin"), limited.dial("admin")
		for i := range 200 {
			if got := a.answer(`{"type":"broadcast","content":"x"}`); got.Type != "ack" {
				t.Fatalf("command %d: %+v, want an ack", i, got)
			}
		}
		for i, want := range []string{"ack", "ack", "error"} {
			if got := b.answer(`{"type":"broadcast","content":"x"}`); got.Type != want {
				t.Errorf("command %d of one limited: %+v, want %s", i, got, want)
			}
		}
	})
}

func TestSlowSocketIsClosedAndOthersAreNot(t *testing.T) {
	s := serve(t, chat.WithBacklog(256<<10))
	slow, quick := s.dial("slow"), s.dial("quick")
	text := strings.Repeat("x", 32<<10)
	last := slow.welcome.SinceIDs()[0]
	for i := range 600 { // more than the kernel's buffers and the backlog
		s.publish("", fmt.Sprintf("%04d%s", i, text[4:]))
		if m := quick.want("message"); !strings.HasPrefix(m.Content, fmt.Sprintf("%04d", i)) {
			t.Fatalf("message %d = %.10s…", i, m.Content)
		}
		if s.Stats().SlowClosed > 0 {
			break
		}
	}
	st := s.Stats()
	if st.SlowClosed != 1 || st.BacklogBytes > 512<<10 {
		t.Fatalf("stats = %+v, want one slow socket and a bounded backlog", st)
	}
	for {
		e, err := slow.read()
		if err != nil {
			if code := websocket.CloseStatus(err); code != 4003 {
				t.Fatalf("closed with %v, want 4003", err)
			}
			break
		}
		if e.Type == "message" {
			last = e.ID
		}
	}
	eventually(t, "its backlog to be gone", func() bool { return s.Stats().BacklogBytes == 0 })
	// What it missed it gets when it resumes.
	s.publish("", "the end")
	c := s.dial("slow", "since", last)
	if !*c.welcome.Recovered {
		t.Fatalf("welcome = %+v, want recovered", c.welcome)
	}
	for want, _ := lastNumber(last, t); ; {
		m := c.want("message")
		want++
		if got, _ := lastNumber(m.ID, t); got != want {
			t.Fatalf("got %s, want place %d", m.ID, want)
		}
		if m.Content == "the end" {
			break
		}
	}
}

func lastNumber(id string, t *testing.T) (uint64, string) {
	t.Helper()
	_, p, err := chat.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	return p.Seq, p.Epoch
}

func TestPeerThatGivesNoSignOfLifeIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const beat = 10 * time.Second
		s := servePipes(t, chat.WithHeartbeat(beat), chat.WithPresence(chat.PresenceToNobody))
		quiet := s.dial("quiet") // reads nothing, so answers no ping
		alive := s.dial("alive")
		go func() {
			for {
				if _, err := alive.read(); err != nil {
					return
				}
			}
		}()
		_ = quiet
		go keepBusy(s)
		<-time.After(2*beat + beat/16)
		synctest.Wait()
		if got := s.Stats().Sockets; got != 1 {
			t.Errorf("%d sockets after two heartbeats, want the one that answers", got)
		}
		alive.hangUp()
	})
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	signer, err := chat.NewHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]chat.Option{
		"an Option is nil":      nil,
		"WithRegistry":          chat.WithRegistry(nil),
		"WithHistory":           chat.WithHistory(nil),
		"WithPolicy":            chat.WithPolicy(nil),
		"WithLogger":            chat.WithLogger(nil),
		"WithClientAddr":        chat.WithClientAddr(nil),
		"WithOrigins":           chat.WithOrigins("example.com"),
		"WithPresence":          chat.WithPresence(7),
		"WithPresenceWindow":    chat.WithPresenceWindow(0),
		"WithPresenceLimit":     chat.WithPresenceLimit(0),
		"WithReadLimit":         chat.WithReadLimit(-1),
		"WithContentLimit":      chat.WithContentLimit(0),
		"WithMaxSockets":        chat.WithMaxSockets(0),
		"WithSocketsPerUser":    chat.WithSocketsPerUser(0),
		"WithChannelsPerSocket": chat.WithChannelsPerSocket(-1),
		"WithCommandRate":       chat.WithCommandRate(-1, 1),
		"WithAdminCommandRate":  chat.WithAdminCommandRate(1, 0),
		"WithConnectRate":       chat.WithConnectRate(1, 0),
		"WithBacklog":           chat.WithBacklog(1),
		"WithStallTimeout":      chat.WithStallTimeout(-time.Second),
		"WithHeartbeat":         chat.WithHeartbeat(0),
	}
	for name, opt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := chat.New(signer, opt); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("New: %v, want an error that names %s", err, name)
			}
		})
	}
	if _, err := chat.New(nil); err == nil {
		t.Error("New without an Authenticator succeeded")
	}
	if _, err := chat.New(signer, chat.WithoutHistory(), chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{}))); err == nil {
		t.Error("New with and without a history succeeded")
	}
}
