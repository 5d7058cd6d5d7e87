package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// publishers is a policy that lets everybody publish.
type publishers struct{ chat.DefaultPolicy }

func (publishers) Publish(context.Context, chat.Identity, string) error { return nil }

// What is answered 429 with is a Retry-After.
func wantTooMany(t *testing.T, resp *http.Response, body string) {
	t.Helper()
	chatserver.WantProblem(t, resp, body, http.StatusTooManyRequests)
	if wait, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || wait < 1 {
		t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
	}
}

// However often one user tries, the others find room: a socket that is refused takes none.
func TestRefusedSocketsTakeNoRoom(t *testing.T) {
	const perUser, places = 2, 5
	s := chatserver.Serve(t, chat.WithSocketsPerUser(perUser), chat.WithMaxSockets(places), chat.WithConnectRate(0, 0))
	for range perUser {
		s.DialRaw(t, "ana")
	}
	for range 10 * places {
		// The peer reads nothing and closes nothing.
		if _, err := s.TryDialRaw("ana"); err == nil || err.Error() != "connecting as ana: upgrading: 429 Too Many Requests" {
			t.Fatalf("one more: %v, want 429", err)
		}
	}
	if n := s.Stats().Sockets; n != perUser {
		t.Errorf("%d sockets hold a place, want %d", n, perUser)
	}
	for i := range places - perUser {
		s.Dial(fmt.Sprint("other", i))
	}
}

// Those that are being replaced, and do not go, are bounded as well.
func TestReplacedSocketsThatDoNotGoAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perUser = 10
		s := chatserver.ServePipes(t, chat.WithSocketsPerUser(perUser), chat.WithReplaceOldest(), chat.WithConnectRate(0, 0),
			chat.WithPresence(chat.PresenceToNobody))
		opened, refused := 0, 0
		for range 3 * perUser {
			d := <-dialling(s, "ana") // reads nothing
			if d.err == nil {
				opened++
				continue
			}
			d.wantRefusedWith(t, http.StatusTooManyRequests)
			refused++
		}
		if opened != 2*perUser || refused != perUser {
			t.Errorf("%d were opened and %d refused, want %d and %d", opened, refused, 2*perUser, perUser)
		}
		<-time.After(closeTime)
		synctest.Wait()
		(<-dialling(s, "ana")).wantWelcome(t)
	})
}

// While a port hangs, the handshakes of one user do not take all the turns to be opened.
func TestOneUserDoesNotTakeAllPlacesOfOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		s := chatserver.ServePipes(t, append(h.options(), chat.WithOpening(16), chat.WithSocketsPerUser(100))...)
		for range 100 {
			dialling(s, "many")
		}
		synctest.Wait()
		if n := h.entered.Load(); n != 2 {
			t.Errorf("%d sockets of one user are being opened, want an eighth of 16", n)
		}
		var others []<-chan dialled
		for i := range 14 {
			others = append(others, dialling(s, fmt.Sprint("other", i)))
		}
		synctest.Wait()
		if n := h.entered.Load(); n != 16 {
			t.Errorf("%d sockets are being opened, want the others', too", n)
		}
		close(h.let)
		for _, one := range others {
			(<-one).wantWelcome(t)
		}
	})
}

func TestCommandsAreCountedByUser(t *testing.T) {
	const burst = 10
	publish := func(c *chatserver.Client) string {
		e := c.Answer(`{"type":"broadcast","content":"x"}`)
		return e.Type + e.Code
	}
	post := func(s *chatserver.Server, name string) string {
		resp, body := s.Request("POST", "/messages", s.Token(name), `{"content":"x"}`)
		if resp.StatusCode != http.StatusCreated {
			wantTooMany(t, resp, body)
			return "error" + "rate_limited"
		}
		return "ack"
	}
	tests := []struct {
		name string
		as   string
		each func(t *testing.T, s *chatserver.Server, as string) func() string // a try to publish
	}{
		{"across sockets", "ana", func(t *testing.T, s *chatserver.Server, as string) func() string {
			sockets, n := []*chatserver.Client{s.Dial(as), s.Dial(as), s.Dial(as)}, 0
			return func() string { n++; return publish(sockets[n%3]) }
		}},
		{"across reconnects", "ana", func(t *testing.T, s *chatserver.Server, as string) func() string {
			return func() string {
				c := s.Dial(as)
				defer c.HangUp()
				return publish(c)
			}
		}},
		{"over HTTP", "ana", func(t *testing.T, s *chatserver.Server, as string) func() string {
			return func() string { return post(s, as) }
		}},
		{"over HTTP and by a socket", "ana", func(t *testing.T, s *chatserver.Server, as string) func() string {
			c, n := s.Dial(as), 0
			return func() string {
				if n++; n%2 == 0 {
					return publish(c)
				}
				return post(s, as)
			}
		}},
		{"an admin's, across reconnects and over HTTP", "admin", func(t *testing.T, s *chatserver.Server, as string) func() string {
			n := 0
			return func() string {
				if n++; n%2 == 0 {
					return post(s, as)
				}
				c := s.Dial(as)
				defer c.HangUp()
				return publish(c)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := chatserver.ServePipes(t, chat.WithPolicy(publishers{}), chat.WithCommandRate(1, burst),
					chat.WithAdminCommandRate(1, burst), chat.WithPresence(chat.PresenceToNobody))
				try := tt.each(t, s, tt.as)
				var got, want []string
				for i := range 2 * burst {
					got = append(got, try())
					want = append(want, map[bool]string{true: "ack", false: "errorrate_limited"}[i < burst])
				}
				<-time.After(2 * time.Second)
				for range 3 {
					got = append(got, try())
				}
				if diff := cmp.Diff(append(want, "ack", "ack", "errorrate_limited"), got); diff != "" {
					t.Errorf("answers (-want +got):\n%s", diff)
				}
				if other := s.Dial("bob"); publish(other) != "ack" {
					t.Error("another user's command is refused")
				}
			})
		})
	}
}

// Refusals are counted by socket: a user's others, and what was asked over HTTP, close
// none that sent little.
func TestASocketIsClosedForItsOwnRefusalsOnly(t *testing.T) {
	const leave = `{"type":"leave","channel":"x"}`
	tests := []struct {
		name string
		busy func(t *testing.T, s *chatserver.Server) // empties the bucket, and is refused often
	}{
		{"another socket is refused", func(t *testing.T, s *chatserver.Server) {
			other := s.Dial("ana")
			for range 40 + 40 {
				other.Answer(leave)
			}
			other.Send(leave)
			other.WantClose(4005)
		}},
		{"requests over HTTP are refused", func(t *testing.T, s *chatserver.Server) {
			for i := range 100 {
				resp, body := s.Request("POST", "/messages", s.Token("ana"), `{"content":"x"}`)
				if i < 40 && resp.StatusCode != http.StatusCreated {
					t.Fatalf("request %d: %s %s", i, resp.Status, body)
				}
				if i >= 40 {
					wantTooMany(t, resp, body)
				}
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := chatserver.ServePipes(t, chat.WithPolicy(publishers{}), chat.WithCommandRate(0.001, 40), chat.WithPresence(chat.PresenceToNobody))
				idle := s.Dial("ana")
				tt.busy(t, s)
				for range 40 {
					if got := idle.Answer(leave); got.Code != "rate_limited" {
						t.Fatalf("answer %+v, want rate_limited", got)
					}
				}
				<-time.After(6 * time.Second) // ends the row
				for range 40 {
					if got := idle.Answer(leave); got.Code != "rate_limited" {
						t.Fatalf("answer %+v, want rate_limited", got)
					}
				}
				idle.Send(leave)
				idle.WantClose(4005)
			})
		})
	}
}

// Every tab of a user may join as many channels after its welcome as a handshake could
// have named, and no more than that is free.
func TestAllSocketsOfAUserMayJoinAllTheirChannelsAtOnce(t *testing.T) {
	const sockets, channels = 16, 100
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t, chat.WithCommandRate(0.001, 1), chat.WithSocketsPerUser(sockets),
			chat.WithChannelsPerSocket(channels), chat.WithPresence(chat.PresenceToNobody))
		var work sync.WaitGroup
		for i := range sockets {
			named := i % 2
			var query []string
			if named > 0 {
				query = []string{"channel", "c0"}
			}
			c := s.Dial("ana", query...)
			work.Go(func() {
				for n := named; n < channels; n++ {
					c.Send(fmt.Sprintf(`{"type":"join","channel":"c%d"}`, n))
				}
				for n := named; n < channels; n++ {
					if e := c.Next(); e.Type != "ack" {
						t.Errorf("join %d: %+v, want an ack", n, e)
						return
					}
				}
			})
		}
		work.Wait()
		if st := s.Stats(); st.Sockets != sockets {
			t.Errorf("%d sockets, want %d", st.Sockets, sockets)
		}
		c := s.Dial("bob")
		var got []string
		for range channels + 2 {
			e := c.Answer(`{"type":"join","channel":"c0"}`)
			got = append(got, e.Type+e.Code)
		}
		if diff := cmp.Diff([]string{"ack", "ack", "errorrate_limited"}, got[channels-1:]); diff != "" {
			t.Errorf("joins beyond what is free (-want +got):\n%s", diff)
		}
	})
}

func TestHandshakesOfAUserAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t, chat.WithConnectRate(0.5, 3), chat.WithPresence(chat.PresenceToNobody))
		try := func(name string) int {
			d := <-dialling(s, name)
			if d.err == nil {
				d.wantWelcome(t)
				_ = d.conn.CloseNow()
				return http.StatusSwitchingProtocols
			}
			d.wantRefusedWith(t, http.StatusTooManyRequests)
			if got := d.resp.Header.Get("Retry-After"); got != "2" {
				t.Errorf("Retry-After %q, want 2", got)
			}
			return d.resp.StatusCode
		}
		var got []int
		for _, name := range []string{"ana", "ana", "ana", "ana", "ana", "bob"} {
			got = append(got, try(name))
		}
		<-time.After(2 * time.Second)
		got = append(got, try("ana"), try("ana"))
		if diff := cmp.Diff([]int{101, 101, 101, 429, 429, 101, 101, 429}, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		if n := s.Stats().RefusedBy["too_often"]; n != 3 {
			t.Errorf("%d refused as too often, want 3", n)
		}
	})
}

// countingAuth counts the tokens that are checked.
type countingAuth struct {
	chat.Authenticator
	asked atomic.Int32
}

func (a *countingAuth) Authenticate(ctx context.Context, token string) (chat.Identity, error) {
	a.asked.Add(1)
	return a.Authenticator.Authenticate(ctx, token)
}

// A client that is refused for that is not checked again at once.
func TestATokenOfAUserWhoConnectsTooOftenIsNotCheckedAgain(t *testing.T) {
	signer, err := chat.NewHS256(chatserver.Secret)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	auth := &countingAuth{Authenticator: signer}
	s := chatserver.ServeAuth(t, l, (&net.Dialer{}).DialContext, signer, auth, chat.WithConnectRate(0.001, 1))
	s.Dial("ana")
	token := s.Token("ana")
	for range 20 {
		resp, body := s.Request("GET", "/ws/chat", token, "", chatserver.UpgradeHeaders...)
		wantTooMany(t, resp, body)
	}
	if n := auth.asked.Load(); n != 2 {
		t.Errorf("tokens were checked %d times, want 2", n)
	}
}

// All sockets of a user may come back several times, as after failures in a row.
func TestAllSocketsOfAUserMayReconnect(t *testing.T) {
	for _, perUser := range []int{16, 40} {
		t.Run(fmt.Sprint(perUser), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := chatserver.ServePipes(t, chat.WithSocketsPerUser(perUser), chat.WithPresence(chat.PresenceToNobody))
				for range 4 {
					var all sync.WaitGroup
					for range perUser {
						all.Go(func() {
							d := <-dialling(s, "ana")
							d.wantWelcome(t)
							_ = d.conn.CloseNow()
						})
					}
					all.Wait()
					synctest.Wait()
				}
			})
		})
	}
}

// Handshakes that the service asks to repeat, as it is in trouble, do not count.
func TestHandshakesThatAreAnswered503DoNotCount(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, append(f.options(), chat.WithConnectRate(0.001, 1))...)
	f.connected = context.DeadlineExceeded
	for range 5 {
		(<-dialling(s, "ana")).wantRefusal(t)
	}
	f.connected = nil
	(<-dialling(s, "ana")).wantWelcome(t)
	resp, body := s.Request("GET", "/ws/chat", s.Token("ana"), "", chatserver.UpgradeHeaders...)
	wantTooMany(t, resp, body)
}

// A browser does not say how a handshake was answered: the page asks without one.
func TestARequestWithoutUpgradeLearnsWhyAHandshakeWouldBeRefused(t *testing.T) {
	ask := func(t *testing.T, s *chatserver.Server, status int) {
		t.Helper()
		resp, body := s.Request("GET", "/ws/chat", s.Token("ana"), "")
		if status == http.StatusTooManyRequests {
			wantTooMany(t, resp, body)
		} else {
			chatserver.WantProblem(t, resp, body, status)
		}
	}
	t.Run("too many sockets", func(t *testing.T) {
		s := chatserver.Serve(t, chat.WithSocketsPerUser(1))
		ask(t, s, http.StatusUpgradeRequired)
		s.Dial("ana")
		ask(t, s, http.StatusTooManyRequests)
	})
	t.Run("too often", func(t *testing.T) {
		s := chatserver.Serve(t, chat.WithConnectRate(0.001, 1))
		ask(t, s, http.StatusUpgradeRequired)
		ask(t, s, http.StatusUpgradeRequired) // to ask costs nothing
		s.Dial("ana")
		ask(t, s, http.StatusTooManyRequests)
	})
}

// crowded is a registry of several nodes: the user has sockets elsewhere.
type crowded struct {
	*chat.MemoryRegistry
	asked *int
}

func (r crowded) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	*r.asked++
	n, err := r.MemoryRegistry.Add(ctx, s, limit)
	return n + 2, err
}

func TestSocketsOnAllNodesAreBoundedByUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := chatserver.ServePipes(t, chat.WithRegistry(crowded{chat.NewMemoryRegistry(), &asked}), chat.WithSocketsPerUser(2))
		for range 3 { // the registry is asked once in a while
			(<-dialling(s, "ana")).wantRefusedWith(t, http.StatusTooManyRequests)
		}
		if asked != 1 {
			t.Errorf("the registry was asked %d times, want once", asked)
		}
		<-time.After(time.Second)
		synctest.Wait()
		if n := s.Stats().Sockets; n != 0 {
			t.Errorf("%d sockets hold a place a second later, want none", n)
		}
		<-time.After(time.Second)
		(<-dialling(s, "ana")).wantRefusedWith(t, http.StatusTooManyRequests)
		if asked != 2 {
			t.Errorf("the registry was asked %d times, want twice", asked)
		}
		synctest.Wait()
		if st := s.Stats(); st.Accepted != 0 || st.RefusedBy["too_many"] != 4 {
			t.Errorf("accepted %d, refused as too many %d, want 0 and 4", st.Accepted, st.RefusedBy["too_many"])
		}
	})
}

// A hostile client does not end the connection of a refused handshake either.
func TestARefusedHandshakeThatIsNotReadIsCut(t *testing.T) {
	asked := 0
	s := chatserver.Serve(t, chat.WithRegistry(crowded{chat.NewMemoryRegistry(), &asked}), chat.WithSocketsPerUser(2))
	conn, err := s.HTTP.Transport.(*http.Transport).DialContext(t.Context(), "tcp", s.URL[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := "GET /ws/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + s.Token("ana") + "\r\n"
	for i := 0; i < len(chatserver.UpgradeHeaders); i += 2 {
		request += chatserver.UpgradeHeaders[i] + ": " + chatserver.UpgradeHeaders[i+1] + "\r\n"
	}
	if _, err := conn.Write([]byte(request + "\r\n")); err != nil {
		t.Fatal(err)
	}
	wstest.Eventually(t, "the refusal", func() bool { return s.Stats().RefusedBy["too_many"] == 1 })
	wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
}
