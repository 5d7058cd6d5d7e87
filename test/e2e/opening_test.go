package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// holding is a registry in which sockets connect when they are let.
type holding struct {
	*faulty
	entered atomic.Int32
	let     chan struct{} // each may take one
}

func newHolding() *holding {
	h := &holding{faulty: newFaulty(chat.MemoryLimits{}), let: make(chan struct{})}
	h.connect = func(string) {
		h.entered.Add(1)
		<-h.let
	}
	return h
}

// dialled is how a handshake ended.
type dialled struct {
	conn  *websocket.Conn
	resp  *http.Response
	err   error
	after time.Duration
}

// dialling dials in the background.
func dialling(s *chatserver.Server, name string, query ...string) <-chan dialled {
	done := make(chan dialled, 1)
	began := time.Now()
	go func() {
		conn, resp, err := s.TryDial(s.Token(name), chatserver.DialOptions{Query: chatserver.Values(query)})
		if conn != nil {
			s.T.Cleanup(func() { _ = conn.CloseNow() })
		}
		done <- dialled{conn, resp, err, time.Since(began)}
	}()
	return done
}

func (d dialled) wantWelcome(t *testing.T) {
	t.Helper()
	if d.err != nil {
		t.Fatal(d.err)
	}
	(&chatserver.Client{T: t, Conn: d.conn}).Want("welcome")
}

// wantRefusal checks an answer of 503.
func (d dialled) wantRefusal(t *testing.T) {
	t.Helper()
	d.wantRefusedWith(t, http.StatusServiceUnavailable)
}

// wantRefusedWith checks an answer that says when to retry.
func (d dialled) wantRefusedWith(t *testing.T, status int) {
	t.Helper()
	if d.err == nil || d.resp == nil || d.resp.StatusCode != status {
		t.Fatalf("answer %v, %v, want %d", d.resp, d.err, status)
	}
	if after, err := strconv.Atoi(d.resp.Header.Get("Retry-After")); err != nil || after < 1 || after > 5 {
		t.Errorf("Retry-After %q, want 1 to 5", d.resp.Header.Get("Retry-After"))
	}
	if kind := d.resp.Header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("Content-Type %q", kind)
	}
}

func TestSocketsBeyondTheBoundAreOpenedOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		s := chatserver.ServePipes(t, append(h.options(), chat.WithOpening(2))...)
		var all []<-chan dialled
		for i := range 5 {
			all = append(all, dialling(s, fmt.Sprint("user", i)))
			synctest.Wait()
		}
		for opened := range all {
			if got, want := h.entered.Load(), int32(min(opened+2, len(all))); got != want {
				t.Errorf("%d sockets were let in with %d open, want %d", got, opened, want)
			}
			h.let <- struct{}{}
			synctest.Wait()
		}
		for _, one := range all {
			(<-one).wantWelcome(t)
		}
	})
}

func TestAHandshakeThatWaitsInVainIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		s := chatserver.ServePipes(t, append(h.options(), chat.WithOpening(1))...)
		first := dialling(s, "first")
		synctest.Wait()
		second := <-dialling(s, "second")
		second.wantRefusal(t)
		if second.after != 10*time.Second {
			t.Errorf("it waited %v, want 10s", second.after)
		}
		if n := s.Stats().Sockets; n != 1 {
			t.Errorf("%d sockets hold a place, want 1", n)
		}
		want := noneOf(handshakeReasons, map[string]uint64{"busy": 1})
		if diff := cmp.Diff(want, s.Stats().RefusedBy); diff != "" {
			t.Errorf("RefusedBy (-want +got):\n%s", diff)
		}
		h.let <- struct{}{}
		(<-first).wantWelcome(t)
	})
}

func TestAWaitingHandshakeIsRefusedWhenTheServiceDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		s := chatserver.ServePipes(t, append(h.options(), chat.WithOpening(1))...)
		dialling(s, "first")
		synctest.Wait()
		second := dialling(s, "second")
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(h.let) })
		time.AfterFunc(time.Second/2, func() { go s.Shutdown(context.Background()) })
		refused := <-second
		refused.wantRefusal(t)
		if refused.after != time.Second/2 {
			t.Errorf("it waited %v, want until the service drains", refused.after)
		}
		if n := s.Stats().RefusedBy["draining"]; n != 1 {
			t.Errorf("%d refused because of draining, want 1", n)
		}
	})
}

func TestAClientThatLeavesWhileWaitingIsNotOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		s := chatserver.ServePipes(t, append(h.options(), chat.WithOpening(1))...)
		first := dialling(s, "first")
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		header := http.Header{"Authorization": {"Bearer " + s.Token("second")}}
		go func() {
			_, _, err := websocket.Dial(ctx, s.URL+"/ws/chat", &websocket.DialOptions{HTTPClient: s.HTTP, HTTPHeader: header})
			if err == nil {
				t.Error("it was let in")
			}
		}()
		synctest.Wait()
		leave()
		synctest.Wait()
		if n := s.Stats().Sockets; n != 1 {
			t.Errorf("%d sockets hold a place, want 1", n)
		}
		h.let <- struct{}{}
		(<-first).wantWelcome(t)
		synctest.Wait()
		if n := h.entered.Load(); n != 1 {
			t.Errorf("%d sockets were opened, want 1", n)
		}
	})
}

func TestASlowReaderGivesItsTurnToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t, chat.WithOpening(1))
		id := s.Publish("", "1")[0]
		for range 20 {
			s.Publish("", strings.Repeat("x", 16<<10))
		}
		slow := s.Dial("slow", "since", id) // reads no further than the welcome
		quick := <-dialling(s, "quick")
		quick.wantWelcome(t)
		if quick.after > 2*time.Second {
			t.Errorf("it waited %v for who reads slowly", quick.after)
		}
		if got := len(restUntil(slow, 20)); got != 20 {
			t.Errorf("the slow one got %d messages, want 20", got)
		}
	})
}

// restUntil is the texts of the next n messages.
func restUntil(c *chatserver.Client, n int) (texts []string) {
	for range n {
		texts = append(texts, c.Want("message").Content)
	}
	return texts
}

// countingHistory counts what is read, each of which takes a second.
type countingHistory struct {
	*chat.MemoryHistory
	mu    sync.Mutex     // guards reads
	reads map[string]int // by channel
}

func (h *countingHistory) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	h.mu.Lock()
	h.reads[channel]++
	h.mu.Unlock()
	msgs, err := h.MemoryHistory.After(ctx, channel, p, limit)
	<-time.After(time.Second) // of the bubble's clock
	return msgs, err
}

func TestSocketsThatMissedTheSameShareTheReadingOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &countingHistory{MemoryHistory: chat.NewMemoryHistory(chat.MemoryLimits{}), reads: make(map[string]int)}
		s := chatserver.ServePipes(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
		from, news := s.Publish("", "1", "2", "3"), s.Publish("news", "a", "b")
		var all []<-chan dialled
		for i := range 50 {
			all = append(all, dialling(s, fmt.Sprint("user", i), "channel", "news", "since", from[0], "since", news[0]))
		}
		for _, one := range all {
			d := <-one
			d.wantWelcome(t)
			c := &chatserver.Client{T: t, Conn: d.conn}
			got := map[string][]string{}
			for range 3 {
				e := c.Want("message")
				got[e.Channel] = append(got[e.Channel], e.Content)
			}
			if diff := cmp.Diff(map[string][]string{"": {"2", "3"}, "news": {"b"}}, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		}
		for _, channel := range []string{"", "news"} {
			if n := h.reads[channel]; n > 5 {
				t.Errorf("%q was read %d times for 50 sockets", channel, n)
			}
		}
	})
}

// A socket that resumes in many channels waits for the history about as long as one
// in a few.
func TestManyChannelsAreReadAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &countingHistory{MemoryHistory: chat.NewMemoryHistory(chat.MemoryLimits{}), reads: make(map[string]int)}
		s := chatserver.ServePipes(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
		var query []string
		for i := range 16 {
			channel := fmt.Sprint("c", i)
			ids := s.Publish(channel, "1", "2")
			query = append(query, "channel", channel, "since", ids[0])
		}
		d := <-dialling(s, "ana", query...)
		d.wantWelcome(t)
		if d.after > 3*time.Second {
			t.Errorf("the welcome came after %v; a read takes a second", d.after)
		}
		c := &chatserver.Client{T: t, Conn: d.conn}
		for range 16 {
			c.WantText("2")
		}
	})
}

func TestAHandshakeIsRefusedWhenAPortFailsBeforeTheWelcome(t *testing.T) {
	down := errors.New("database down")
	tests := []struct {
		name string
		arm  func(f *faulty)
	}{
		{"the history", func(f *faulty) { f.after = func(context.Context) error { return down } }},
		{"the registry, connecting", func(f *faulty) { f.connected = down }},
		{"the registry, joining", func(f *faulty) { f.joining = down }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFaulty(chat.MemoryLimits{})
			s := chatserver.Serve(t, f.options()...)
			id := s.Publish("", "1")[0]
			tt.arm(f)
			d := <-dialling(s, "ana", "since", id, "channel", "news")
			d.wantRefusal(t)
			wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
			st := s.Stats()
			if st.Accepted != 0 || st.RefusedBy["unavailable"] != 1 {
				t.Errorf("accepted %d, refused as unavailable %d, want 0 and 1", st.Accepted, st.RefusedBy["unavailable"])
			}
			if list, err := s.Connected(t.Context(), ""); len(list) > 0 {
				t.Errorf("connected: %v, %v", list, err)
			}
		})
	}
}

// A heartbeat does not answer a handshake that may still be refused.
func TestAHandshakeIsNotAnsweredByAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(chat.MemoryLimits{})
		s := chatserver.ServePipes(t, append(f.options(), chat.WithHeartbeat(time.Second))...)
		id := s.Publish("", "1")[0]
		f.after = func(context.Context) error {
			<-time.After(4 * time.Second) // of the bubble's clock
			return errors.New("database down")
		}
		(<-dialling(s, "ana", "since", id)).wantRefusal(t)
	})
}

func TestTheLogHasAFewLinesOfTheSameTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(chat.MemoryLimits{})
		var log lockedBuffer
		s := chatserver.ServePipes(t, append(f.options(), chat.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))...)
		id := s.Publish("", "1")[0]
		f.after = func(context.Context) error { return errors.New("database down") }
		var all []<-chan dialled
		for i := range 100 {
			all = append(all, dialling(s, fmt.Sprint("user", i), "since", id))
		}
		for _, one := range all {
			(<-one).wantRefusal(t)
		}
		<-time.After(2 * time.Second) // of the bubble's clock
		synctest.Wait()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 11 || !strings.Contains(lines[10], "count=90") {
			t.Errorf("%d lines, the last one %s; want 10 and one that 90 were left out", len(lines), lines[len(lines)-1])
		}
	})
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Handshakes that wait do not count as sockets: a user with many takes none from others.
func TestWaitingHandshakesTakeNoPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		s := chatserver.ServePipes(t, append(h.options(), chat.WithOpening(1), chat.WithMaxSockets(4), chat.WithSocketsPerUser(2))...)
		var many []<-chan dialled
		for range 20 {
			many = append(many, dialling(s, "many"))
			synctest.Wait()
		}
		if n := s.Stats().Sockets; n != 1 {
			t.Errorf("%d sockets hold a place, want the one that is being opened", n)
		}
		for _, one := range many[2:] { // one is being opened, one waits
			d := <-one
			d.wantRefusedWith(t, http.StatusTooManyRequests)
			if d.after != 0 {
				t.Errorf("it was refused after %v, want at once", d.after)
			}
		}
		other := dialling(s, "other")
		synctest.Wait()
		close(h.let)
		(<-other).wantWelcome(t)
		for _, one := range many[:2] {
			if d := <-one; d.err != nil {
				t.Error(d.err)
			}
		}
		want := noneOf(handshakeReasons, map[string]uint64{"too_many": 18})
		if diff := cmp.Diff(want, s.Stats().RefusedBy); diff != "" {
			t.Errorf("RefusedBy (-want +got):\n%s", diff)
		}
	})
}

func TestHandshakesAreRefusedAtOnceWhenManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		s := chatserver.ServePipes(t, append(h.options(), chat.WithOpening(1))...)
		var in []<-chan dialled
		for i := range 1 + 24 {
			in = append(in, dialling(s, fmt.Sprint("user", i)))
			synctest.Wait()
		}
		for i := range 3 {
			d := <-dialling(s, fmt.Sprint("late", i))
			d.wantRefusal(t)
			if d.after != 0 {
				t.Errorf("it was refused after %v, want at once", d.after)
			}
		}
		close(h.let)
		for _, one := range in {
			(<-one).wantWelcome(t)
		}
		(<-dialling(s, "late")).wantWelcome(t)
	})
}

// brokenHijack is a middleware's ResponseWriter that panics when a connection is to be
// taken over.
type brokenHijack struct{ http.ResponseWriter }

func (brokenHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) { panic(http.ErrAbortHandler) }

// brokenUnwrapped can be unwrapped too: the service writes the status first.
type brokenUnwrapped struct{ brokenHijack }

func (b brokenUnwrapped) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// brokenStatus panics when the status of the upgrade is written.
type brokenStatus struct{ unwrapOnly }

func (b brokenStatus) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		panic(http.ErrAbortHandler)
	}
	b.unwrapOnly.WriteHeader(status)
}

func TestAPanicOfMiddlewareTakesNoPlace(t *testing.T) {
	for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"taking the connection over":       func(w http.ResponseWriter) http.ResponseWriter { return brokenHijack{w} },
		"taking it over behind the status": func(w http.ResponseWriter) http.ResponseWriter { return brokenUnwrapped{brokenHijack{w}} },
		"writing the status":               func(w http.ResponseWriter) http.ResponseWriter { return brokenStatus{unwrapOnly{w}} },
	} {
		t.Run(name, func(t *testing.T) { testPanicTakesNoPlace(t, wrap) })
	}
}

func testPanicTakesNoPlace(t *testing.T, wrap func(http.ResponseWriter) http.ResponseWriter) {
	s := chatserver.Serve(t, chat.WithOpening(1), chat.WithMaxSockets(1))
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(wrap(w), r)
	}))
	defer broken.Close()
	header := http.Header{"Authorization": {"Bearer " + s.Token("ana")}}
	for range 2 {
		if _, _, err := websocket.Dial(t.Context(), broken.URL+"/ws/chat", &websocket.DialOptions{HTTPHeader: header}); err == nil {
			t.Fatal("it was let in")
		}
	}
	wstest.Eventually(t, "their places to be free", func() bool { return s.Stats().Sockets == 0 })
	s.Dial("ana")
}
