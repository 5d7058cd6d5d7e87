package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/pipenet"
	"github.com/reto10/chat/test/wstest"
)

// office serves over pipes, which hold nothing: what a client does not read waits.
type office struct {
	*chatserver.Server
	listener *pipenet.Listener
}

func serveOffice(t *testing.T, opts ...chat.Option) office {
	l := pipenet.Listen()
	return office{chatserver.ServeOn(t, l, l.Dial, append(opts, chat.WithPresence(chat.PresenceToNobody))...), l}
}

// ask sends a request for a page and reads nothing.
func (o office) ask(user, query string) net.Conn {
	o.T.Helper()
	conn, err := o.listener.Dial(context.Background(), "", "")
	if err != nil {
		o.T.Fatal(err)
	}
	o.T.Cleanup(func() { conn.Close() })
	go fmt.Fprintf(conn, "GET /messages?%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", query, o.Token(user))
	return conn
}

// answerOn reads the answer to ask.
func answerOn(conn net.Conn) (resp *http.Response, body string, err error) {
	if resp, err = http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

const long = 32 << 10 // bytes of a message's content

func (o office) publishLong(channel string, n int) (ids []string) {
	for range n {
		ids = append(ids, o.Publish(channel, strings.Repeat("x", long))...)
	}
	return ids
}

func TestAPageForASlowReaderHoldsOneStepAndCountsIt(t *testing.T) {
	for _, query := range []string{"limit=1000", "limit=1000&before="} {
		t.Run(query, func(t *testing.T) {
			h := newReadingHistory()
			o := serveOffice(t, chat.WithHistory(h))
			o.publishLong("", 100)
			const readers = 4
			var conns []net.Conn
			for range readers {
				conns = append(conns, o.ask("slow", query))
			}
			wstest.Eventually(t, "what waits to be counted", func() bool { return o.Stats().BacklogBytes >= readers*long })
			h.liveAtMost(t, readers*3)
			if most := int64(readers * (64<<10 + long)); o.Stats().BacklogBytes > most {
				t.Errorf("%d bytes are said to wait, want %d at most", o.Stats().BacklogBytes, most)
			}
			// A page has 1 MiB, and read backward it is looked at before.
			if most := int64(readers * 2 * 36); h.returned.Load() > most {
				t.Errorf("%d messages were read, want %d at most", h.returned.Load(), most)
			}
			for _, conn := range conns {
				resp, body, err := answerOn(conn)
				if err != nil || resp.StatusCode != 200 || len(body) < 1<<20 || len(body) > 1<<20+40*200 {
					t.Errorf("%v, %d bytes, %v", resp, len(body), err)
				}
			}
			wstest.Eventually(t, "nothing to wait", func() bool { return o.Stats().BacklogBytes == 0 })
			h.liveAtMost(t, 0)
		})
	}
}

func TestAPageIsJSONWithoutTheEscapesOfHTML(t *testing.T) {
	s := chatserver.Serve(t)
	contents := []string{"plain", "<b>&amp;</b>", "\u2028\u2029", "\"quoted\" \\ \n\t\r\x01\x7f", "é 世界 🎉", strings.Repeat("<", long)}
	s.Publish("news", contents...)
	for _, query := range []string{"channel=news", "channel=news&before="} {
		_, body := s.Request("GET", "/messages?"+query, s.Token("ana"), "")
		type message struct {
			ID      string `json:"id"`
			Channel string `json:"channel"`
			Sender  string `json:"sender"`
			Content string `json:"content"`
			Time    string `json:"time"`
		}
		var page struct {
			Messages []message `json:"messages"`
			More     bool      `json:"more"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range page.Messages {
			got = append(got, m.Content)
		}
		if diff := cmp.Diff(contents, got); diff != "" {
			t.Errorf("contents (-want +got):\n%s", diff)
		}
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(page); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.String(), body); diff != "" {
			t.Errorf("a page (-want +got):\n%s", diff)
		}
	}
}

// A client must not take a part of a page for all of it.
func TestAPageThatCannotBeReadToItsEndBreaksOff(t *testing.T) {
	for _, query := range []string{"limit=1000", "limit=1000&before="} {
		t.Run(query, func(t *testing.T) {
			f := newFaulty(chat.MemoryLimits{})
			s := chatserver.Serve(t, f.options()...)
			for range 40 {
				s.Publish("", strings.Repeat("x", long))
			}
			reads := 0
			f.after = func(context.Context) error { reads++; return nil }
			s.Request("GET", "/messages?"+query, s.Token("ana"), "") // all of it
			all, failures := reads, s.Stats().PortErrors["history"].Others
			for fails := 1; fails <= all; fails++ {
				reads = 0
				f.after = func(context.Context) error {
					if reads++; reads == fails {
						return errors.New("the disk is gone")
					}
					return nil
				}
				req, err := http.NewRequest("GET", s.URL+"/messages?"+query, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+s.Token("ana"))
				resp, err := s.HTTP.Do(req)
				if err != nil {
					continue // nothing of it was sent yet
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				switch {
				case resp.StatusCode == 503 && resp.Header.Get("Retry-After") != "":
				case resp.StatusCode == 503 || err == nil:
					t.Errorf("reading %d fails: %d, %d bytes, Retry-After %q", fails, resp.StatusCode, len(body), resp.Header.Get("Retry-After"))
				case fails == 1:
					t.Errorf("the first reading fails: %d, want 503", resp.StatusCode)
				}
			}
			if n := s.Stats().PortErrors["history"].Others - failures; n != uint64(all) {
				t.Errorf("%d failures of the history are counted, want %d", n, all)
			}
			if n := s.Stats().BacklogBytes; n != 0 {
				t.Errorf("%d bytes still wait", n)
			}
		})
	}
}

func TestAReaderThatTakesTooLongForAStepIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serveOffice(t, chat.WithStallTimeout(10*time.Second))
		o.publishLong("", 40)
		stalled, steady := o.ask("ana", "limit=1000"), o.ask("bob", "limit=1000")
		// As slow as it may be, which takes longer than a step may for the whole page.
		began := time.Now()
		var got int
		buf := make([]byte, 32<<10)
		for got < 1<<20 {
			n, err := steady.Read(buf)
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			got += n
			<-time.After(time.Second)
		}
		if took := time.Since(began); took < 20*time.Second {
			t.Fatalf("it took %v, which says nothing", took)
		}
		if n := o.Stats().BacklogBytes; n != 0 {
			t.Errorf("%d bytes still wait for the reader that stalled", n)
		}
		if _, body, err := answerOn(stalled); err == nil {
			t.Errorf("the reader that stalled got a page of %d bytes", len(body))
		}
	})
}

func TestPagesOfOneUserAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serveOffice(t, chat.WithStallTimeout(time.Minute))
		o.publishLong("", 40)
		for range 4 {
			o.ask("ana", "limit=1000")
		}
		synctest.Wait()
		began := time.Now()
		var asking sync.WaitGroup
		for i := range 40 { // 28 wait, the others do not even that
			conn := o.ask("ana", "limit=1")
			synctest.Wait()
			asking.Go(func() {
				resp, body, err := answerOn(conn)
				if err != nil {
					t.Error(err)
					return
				}
				chatserver.WantProblem(t, resp, body, 429)
				if resp.Header.Get("Retry-After") == "" {
					t.Error("a 429 without Retry-After")
				}
				if waited := time.Since(began); i < 28 && waited < 2*time.Second || i >= 28 && waited > 0 {
					t.Errorf("number %d waited %v", i, waited)
				}
			})
		}
		if resp, body, err := answerOn(o.ask("bob", "limit=1000")); err != nil || resp.StatusCode != 200 {
			t.Errorf("another user got %v %.100s, %v", resp, body, err)
		}
		asking.Wait()
	})
}

// hangingHistory does not answer until it is let go, and counts who asks.
type hangingHistory struct {
	*chat.MemoryHistory
	asking, most atomic.Int64
	goOn         atomic.Pointer[chan struct{}] // nil: it answers
}

// hang has readings wait from now on, and letGo ends that.
func (h *hangingHistory) hang() {
	goOn := make(chan struct{})
	h.goOn.Store(&goOn)
}

func (h *hangingHistory) letGo() { close(*h.goOn.Load()) }

func (h *hangingHistory) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	if n := h.asking.Add(1); n > h.most.Load() {
		h.most.Store(n)
	}
	defer h.asking.Add(-1)
	if goOn := h.goOn.Load(); goOn != nil {
		select {
		case <-*goOn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.MemoryHistory.After(ctx, channel, p, limit)
}

func TestReadingsOfAllPagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hangingHistory{MemoryHistory: chat.NewMemoryHistory(chat.MemoryLimits{})}
		h.hang()
		var log bytes.Buffer
		o := serveOffice(t, chat.WithHistory(h), chat.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		o.Publish("", "1")
		// Each user has two readings, and of these one that began just now.
		var inside []net.Conn
		for i := range 33 {
			user := fmt.Sprint("user", i)
			for range 2 {
				inside = append(inside, o.ask(user, ""))
				synctest.Wait()
			}
			if i == 4 {
				if n := h.asking.Load(); n != 4 {
					t.Errorf("%d readings began at once, want 4, one of each user", n)
				}
			}
		}
		<-time.After(2500 * time.Millisecond) // nine rounds of four and the first
		if n := h.asking.Load(); n < 40 {
			t.Errorf("%d readings are under way: those that are slow keep the others from beginning", n)
		}
		h.letGo()
		for i, conn := range inside {
			resp, body, err := answerOn(conn)
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("number %d got %v %s, %v", i, resp, body, err)
			}
		}
		if n := h.most.Load(); n > 64 {
			t.Errorf("%d readings were under way at once, want 64 at the most", n)
		}
		if log.Len() > 0 {
			t.Errorf("it is logged as a failure:\n%s", &log)
		}
	})
}

func TestReadingsOfAUserThatAreSlowMakeTheUserWaitAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hangingHistory{MemoryHistory: chat.NewMemoryHistory(chat.MemoryLimits{})}
		h.hang()
		var log bytes.Buffer
		o := serveOffice(t, chat.WithHistory(h), chat.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		o.Publish("", "1")
		var asked []net.Conn
		for range 3 {
			asked = append(asked, o.ask("ana", ""))
			synctest.Wait()
		}
		began := time.Now()
		resp, body, err := answerOn(asked[2])
		if err != nil {
			t.Fatal(err)
		}
		chatserver.WantProblem(t, resp, body, 503)
		if waited := time.Since(began); resp.Header.Get("Retry-After") == "" || waited != 3*time.Second {
			t.Errorf("a 503 after %v, Retry-After %q", waited, resp.Header.Get("Retry-After"))
		}
		if n := h.asking.Load(); n != 2 {
			t.Errorf("%d readings of a user are under way, want 2", n)
		}
		h.letGo()
		for _, conn := range asked[:2] {
			if resp, body, err := answerOn(conn); err != nil || resp.StatusCode != 200 {
				t.Errorf("got %v %s, %v", resp, body, err)
			}
		}
		if log.Len() > 0 {
			t.Errorf("it is logged as a failure:\n%s", &log)
		}
	})
}

// slowChannel answers for one channel as a database does in which somebody holds a row.
type slowChannel struct{ *chat.MemoryHistory }

func (h slowChannel) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	if channel == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.MemoryHistory.After(ctx, channel, p, limit)
}

func TestAChannelThatIsReadSlowlyTakesNoPagesFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serveOffice(t, chat.WithHistory(slowChannel{chat.NewMemoryHistory(chat.MemoryLimits{})}))
		o.Publish("news", "1")
		ctx, stop := context.WithCancel(t.Context())
		var attacking sync.WaitGroup
		for _, user := range []string{"eve", "mallory"} {
			for range 4 {
				attacking.Go(func() {
					for ctx.Err() == nil {
						_, _, _ = answerOn(o.ask(user, "channel=slow"))
					}
				})
			}
		}
		synctest.Wait()
		for i := range 40 {
			began := time.Now()
			resp, body, err := answerOn(o.ask("ana", "channel=news"))
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("page %d after %v: %v %s, %v", i, time.Since(began), resp, body, err)
			}
			<-time.After(100 * time.Millisecond)
		}
		stop()
		attacking.Wait()
	})
}

func TestReadersThatReadNothingTakeNoTurnFromOthers(t *testing.T) {
	o := serveOffice(t)
	o.publishLong("", 40)
	for i := range 100 {
		o.ask(fmt.Sprint("slow", i), "limit=1000")
	}
	wstest.Eventually(t, "all to be read for", func() bool { return o.Stats().BacklogBytes >= 100*long })
	if resp, body, err := answerOn(o.ask("ana", "limit=1000")); err != nil || resp.StatusCode != 200 {
		t.Errorf("got %v %.100s, %v", resp, body, err)
	}
}

func TestAPageOfWhatIsDroppedNextIsSentWhole(t *testing.T) {
	o := serveOffice(t, chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 20})))
	o.publishLong("", 25)
	conn := o.ask("slow", "limit=1000&before=")
	wstest.Eventually(t, "the page to begin", func() bool { return o.Stats().BacklogBytes >= long })
	o.publishLong("", 25)
	if resp, body, err := answerOn(conn); err != nil || resp.StatusCode != 200 || !strings.Contains(body, `"more":true`) {
		t.Errorf("%v, %d bytes, %v", resp, len(body), err)
	}
}
