package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

func TestFramesThatAreNotTextCloseTheSocket(t *testing.T) {
	s := chatserver.Serve(t, chat.WithReadLimit(1000), chat.WithContentLimit(1000))
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
	listener := s.Dial("listener")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := s.DialWith("admin", chatserver.DialOptions{Raw: true})
			if err := c.Conn.Write(t.Context(), tt.typ, []byte(tt.data)); err != nil {
				t.Fatal(err)
			}
			if tt.code == 0 {
				c.WantText(tt.data)
				listener.WantText(tt.data)
				return
			}
			c.WantClose(tt.code)
		})
	}
	s.Publish("", "nothing else came")
	listener.WantText("nothing else came")
}

func TestSocketsOfOneUserAreBounded(t *testing.T) {
	s := chatserver.Serve(t, chat.WithSocketsPerUser(2))
	first, _ := s.Dial("ana"), s.Dial("ana")
	(<-dialling(s, "ana")).wantRefusedWith(t, http.StatusTooManyRequests)
	s.Dial("bob")
	first.HangUp()
	wstest.Eventually(t, "room for another", func() bool { return s.Stats().Sockets == 2 })
	s.Dial("ana")
}

func TestOldestSocketIsReplacedWhenAsked(t *testing.T) {
	s := chatserver.Serve(t, chat.WithSocketsPerUser(2), chat.WithReplaceOldest())
	first, second := s.Dial("ana"), s.Dial("ana")
	third := s.Dial("ana")
	first.WantClose(4004)
	s.Publish("", "x")
	second.WantText("x")
	third.WantText("x")
}

func TestSocketsInAllAreBounded(t *testing.T) {
	s := chatserver.Serve(t, chat.WithMaxSockets(2))
	a := s.Dial("ana")
	s.Dial("bob")
	resp, body := s.Request("GET", "/ws/chat", s.Token("eve"), "", chatserver.UpgradeHeaders...)
	chatserver.WantProblem(t, resp, body, 503)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("a 503 without Retry-After")
	}
	a.HangUp()
	wstest.Eventually(t, "room for another", func() bool { return s.Stats().Sockets == 1 })
	s.Dial("eve")
}

func TestChannelsOfOneSocketAreBounded(t *testing.T) {
	s := chatserver.Serve(t, chat.WithChannelsPerSocket(2))
	c := s.Dial("ana", "channel", "a", "channel", "b", "channel", "a")
	if got := c.Answer(`{"type":"join","channel":"c"}`); got.Code != "invalid" {
		t.Errorf("a third channel: %+v, want invalid", got)
	}
	if got := c.Answer(`{"type":"join","channel":"b"}`); got.Type != "ack" {
		t.Errorf("one that is joined: %+v, want an ack", got)
	}
	c.Answer(`{"type":"leave","channel":"a"}`)
	if got := c.Answer(`{"type":"join","channel":"c"}`); got.Type != "ack" {
		t.Errorf("after leaving one: %+v, want an ack", got)
	}
	resp, body := s.Request("GET", "/ws/chat?channel=a&channel=b&channel=c", s.Token("ana"), "", chatserver.UpgradeHeaders...)
	chatserver.WantProblem(t, resp, body, 400)
}

func TestCommandsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t, chat.WithChannelsPerSocket(1))
		c := s.Dial("ana", "channel", "c") // no join is free
		join := `{"type":"join","channel":"c","ref":5}`
		for i := range 40 {
			if got := c.Answer(join); got.Type != "ack" {
				t.Fatalf("command %d: %+v, want an ack", i, got)
			}
		}
		if got := c.Answer(join); got.Code != "rate_limited" || string(got.Ref) != "5" {
			t.Fatalf("after the burst: %+v, want rate_limited with its ref", got)
		}
		<-time.After(time.Second)
		for i := range 20 {
			if got := c.Answer(join); got.Type != "ack" {
				t.Fatalf("command %d of the next second: %+v, want an ack", i, got)
			}
		}
		// Who goes on regardless is warned, and then closed.
		go func() {
			for {
				if c.Conn.Write(t.Context(), websocket.MessageText, []byte(join)) != nil {
					return
				}
			}
		}()
		c.WantClose(4005)
	})
}

func TestAdminsCommandsAreLimitedWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, limited := chatserver.ServePipes(t), chatserver.ServePipes(t, chat.WithAdminCommandRate(1, 2))
		a, b := free.Dial("admin"), limited.Dial("admin")
		for i := range 200 {
			if got := a.Answer(`{"type":"broadcast","content":"x"}`); got.Type != "ack" {
				t.Fatalf("command %d: %+v, want an ack", i, got)
			}
		}
		for i, want := range []string{"ack", "ack", "error"} {
			if got := b.Answer(`{"type":"broadcast","content":"x"}`); got.Type != want {
				t.Errorf("command %d of one limited: %+v, want %s", i, got, want)
			}
		}
	})
}

func TestSlowSocketIsClosedAndOthersAreNot(t *testing.T) {
	s := chatserver.Serve(t, chat.WithBacklog(256<<10))
	slow, quick := s.Dial("slow"), s.Dial("quick")
	text := strings.Repeat("x", 32<<10)
	last := slow.Welcome.SinceIDs()[0]
	for i := range 600 { // more than the kernel's buffers and the backlog
		s.Publish("", fmt.Sprintf("%04d%s", i, text[4:]))
		if m := quick.Want("message"); !strings.HasPrefix(m.Content, fmt.Sprintf("%04d", i)) {
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
		e, err := slow.Read()
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
	wstest.Eventually(t, "its backlog to be gone", func() bool { return s.Stats().BacklogBytes == 0 })
	// What it missed it gets when it resumes.
	s.Publish("", "the end")
	c := s.Dial("slow", "since", last)
	if !*c.Welcome.Recovered {
		t.Fatalf("welcome = %+v, want recovered", c.Welcome)
	}
	for want, _ := lastNumber(last, t); ; {
		m := c.Want("message")
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
		s := chatserver.ServePipes(t, chat.WithHeartbeat(beat), chat.WithPresence(chat.PresenceToNobody))
		quiet := s.Dial("quiet") // reads nothing, so answers no ping
		alive := s.Dial("alive")
		go func() {
			for {
				if _, err := alive.Read(); err != nil {
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
		alive.HangUp()
	})
}

func TestNewRejectsInvalidOptions(t *testing.T) {
	signer, err := chat.NewHS256(chatserver.Secret)
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
