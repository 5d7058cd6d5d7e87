package chat_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

func TestResumeOnConnectBringsExactlyWhatWasMissed(t *testing.T) {
	s := chatserver.Serve(t)
	c := s.Dial("ana", "channel", "news")
	ids := s.Publish("", "all 1")
	news := s.Publish("news", "news 1")
	own := s.Publish("@ana", "own 1")
	for range 3 {
		c.Want("message")
	}
	c.HangUp()
	s.Publish("", "all 2", "all 3")
	s.Publish("news", "news 2")
	s.Publish("@ana", "own 2")
	s.Publish("other", "not hers")

	c = s.Dial("ana", "channel", "news", "since", ids[0], "since", news[0], "since", own[0])
	if c.Welcome.Recovered == nil || !*c.Welcome.Recovered {
		t.Fatalf("welcome = %+v, want recovered", c.Welcome)
	}
	if diff := cmp.Diff([]string{ids[0], own[0], news[0]}, c.Welcome.SinceIDs()); diff != "" {
		t.Errorf("since (-want +got):\n%s", diff)
	}
	s.Publish("", "all 4")
	got := map[string][]string{}
	for range 5 {
		m := c.Want("message")
		got[m.Channel] = append(got[m.Channel], m.Content)
	}
	want := map[string][]string{"": {"all 2", "all 3", "all 4"}, "@ana": {"own 2"}, "news": {"news 2"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestClientThatSawNothingResumesFromTheWelcome(t *testing.T) {
	s := chatserver.Serve(t)
	s.Publish("", "before her time")
	first := s.Dial("ana")
	first.HangUp()
	s.Publish("", "missed")
	var query []string
	for _, id := range first.Welcome.SinceIDs() {
		query = append(query, "since", id)
	}
	c := s.Dial("ana", query...)
	if c.Welcome.Recovered == nil || !*c.Welcome.Recovered {
		t.Fatalf("welcome = %+v, want recovered", c.Welcome)
	}
	c.WantText("missed")
}

func TestResumeFromWhatIsNotKeptIsNotRecovered(t *testing.T) {
	s := chatserver.Serve(t, chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 3})))
	ids := s.Publish("", "1", "2", "3", "4", "5", "6")
	tests := map[string]struct {
		since     string
		recovered bool
		next      string
	}{
		"nothing missed":            {ids[5], true, "live"},
		"all missed is kept":        {ids[2], true, "4"},
		"the next is gone":          {ids[1], false, "live"},
		"another epoch":             {"3-0therepoch", false, "live"},
		"a place that never was":    {chat.FormatID("", chatserver.PositionOf(t, ids[5], 99)), false, "live"},
		"no id at all":              {"garbage", false, "live"},
		"id of a channel not asked": {chat.FormatID("news", chatserver.PositionOf(t, ids[5], 0)), false, "live"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := s.Dial("ana", "since", tt.since)
			if c.Welcome.Recovered == nil || *c.Welcome.Recovered != tt.recovered {
				t.Fatalf("welcome = %+v, want recovered %v", c.Welcome, tt.recovered)
			}
			if tt.next == "live" {
				s.Publish("@ana", "live")
			}
			c.WantText(tt.next)
			c.HangUp()
		})
	}
}

func TestJoinWithSinceBringsWhatWasMissedBeforeItsAck(t *testing.T) {
	s := chatserver.Serve(t)
	ids := s.Publish("news", "1", "2", "3")
	c := s.Dial("ana")
	c.Send(`{"type":"join","channel":"news","since":"` + ids[0] + `","ref":1}`)
	c.WantText("2")
	c.WantText("3")
	ack := c.Want("ack")
	if ack.Recovered == nil || !*ack.Recovered || ack.SinceIDs()[0] != ids[2] {
		t.Errorf("ack = %+v, want recovered and since %s", ack, ids[2])
	}
	s.Publish("news", "4")
	c.WantText("4")

	t.Run("again from the id joined with", func(t *testing.T) {
		c.Send(`{"type":"join","channel":"news","since":"` + ids[0] + `"}`)
		if ack := c.Want("ack"); !*ack.Recovered {
			t.Errorf("ack = %+v, want recovered: all behind it came", ack)
		}
	})
	t.Run("again from an older id", func(t *testing.T) {
		older := chat.FormatID("news", chatserver.PositionOf(t, ids[0], 0))
		c.Send(`{"type":"join","channel":"news","since":"` + older + `"}`)
		if ack := c.Want("ack"); *ack.Recovered {
			t.Errorf("ack = %+v, want not recovered: a socket does not go back", ack)
		}
		c.Send(`{"type":"leave","channel":"news"}`)
		c.Want("ack")
		c.Send(`{"type":"join","channel":"news","since":"` + older + `"}`)
		for _, text := range []string{"1", "2", "3", "4"} {
			c.WantText(text)
		}
		if ack := c.Want("ack"); !*ack.Recovered {
			t.Errorf("ack = %+v, want recovered after leaving", ack)
		}
		s.Publish("news", "5")
		c.WantText("5")
	})
	t.Run("from an id that is none", func(t *testing.T) {
		c.Send(`{"type":"join","channel":"news","since":"x"}`)
		ack := c.Want("ack")
		if ack.Recovered == nil || *ack.Recovered || ack.SinceIDs()[0] == "" {
			t.Errorf("ack = %+v, want not recovered, and where it starts", ack)
		}
	})
}

// What was missed is sent as fast as the client reads: it is no backlog, however
// much it is.
func TestResumeOfMoreThanTheBacklogHolds(t *testing.T) {
	s := chatserver.Serve(t)
	first := s.Publish("", "first")[0]
	text := strings.Repeat("x", 32<<10-3)
	for i := range 300 {
		s.Publish("", fmt.Sprintf("%03d%s", i, text))
	}
	c := s.Dial("ana", "since", first)
	s.Publish("", "live")
	for i := range 300 {
		if m := c.Want("message"); !strings.HasPrefix(m.Content, fmt.Sprintf("%03dx", i)) {
			t.Fatalf("message %d = %.10s…", i, m.Content)
		}
		if got := s.Stats().BacklogBytes; got > 256<<10 {
			t.Fatalf("a backlog of %d bytes for a client that reads", got)
		}
	}
	c.WantText("live")
}

func TestWithoutHistoryNothingIsRecoveredOrRead(t *testing.T) {
	s := chatserver.Serve(t, chat.WithoutHistory())
	ids := s.Publish("", "1", "2")
	c := s.Dial("ana", "since", ids[0])
	if c.Welcome.Recovered == nil || *c.Welcome.Recovered {
		t.Errorf("welcome = %+v, want not recovered", c.Welcome)
	}
	s.Publish("", "3")
	c.WantText("3")
	// A socket that joins a channel again knows by itself that it has got all.
	own := s.Publish("@ana", "own")[0]
	c.WantText("own")
	if ack := c.Answer(`{"type":"join","channel":"@ana","since":"` + own + `"}`); ack.Recovered == nil || !*ack.Recovered {
		t.Errorf("ack = %+v, want recovered", ack)
	}
	resp, body := s.Request("GET", "/messages", s.Token("ana"), "")
	chatserver.WantProblem(t, resp, body, 405)
}

// A publisher that never stops while sockets drop and return: each client, over
// all its sockets, sees every message of its channels once and in order.
func TestNoGapAndNoRepeatWhileSocketsDropAndReturn(t *testing.T) {
	const clients, rounds = 8, 25
	// All is kept: how far a slow client falls behind is not the point here.
	s := chatserver.Serve(t, chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 1 << 20})))
	ctx, stop := context.WithCancel(context.Background())
	var publishers sync.WaitGroup
	var total [2]int
	channels := []string{"", "news"}
	for i, channel := range channels {
		publishers.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				_, err := s.Broadcast(context.Background(), chat.Message{Channel: channel, Sender: "ci", Content: fmt.Sprint(n)})
				if err != nil {
					t.Errorf("Broadcast: %v", err)
					return
				}
				total[i] = n
				if n%16 == 0 {
					<-time.After(time.Millisecond) // a rate that -race can follow
				}
			}
		})
	}
	var readers sync.WaitGroup
	for i := range clients {
		readers.Go(func() {
			r := &returning{s: s, name: fmt.Sprintf("user%d", i), last: map[string]string{}, seq: map[string]int{}}
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				if err := r.session(rng.IntN(60)); err != nil {
					t.Errorf("%s: %v", r.name, err)
					return
				}
			}
		})
	}
	readers.Wait()
	stop()
	publishers.Wait()
	t.Logf("published %v", total)
}

// returning is a client that keeps the last id of each channel and resumes.
type returning struct {
	s    *chatserver.Server
	name string
	last map[string]string // channel to id
	seq  map[string]int    // channel to the number in the last message

	byPosition bool // messages have no numbers of their own: seq is the position's
}

// session connects, reads n messages, and drops the connection.
func (r *returning) session(n int) error {
	q := []string{"channel", "news"}
	for _, id := range r.last {
		q = append(q, "since", id)
	}
	conn, _, err := r.s.TryDial(r.s.Token(r.name), chatserver.DialOptions{Query: chatserver.Values(q)})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(-1)
	ctx, cancel := context.WithTimeout(context.Background(), chatserver.Patience)
	defer cancel()
	first := true
	for read := 0; read < n; {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		var e wstest.Event
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		switch e.Type {
		case "welcome":
			if !first || len(r.last) > 0 && !*e.Recovered {
				return fmt.Errorf("welcome %s, want it first and recovered", text)
			}
			for _, id := range e.SinceIDs() {
				channel, _, err := chat.ParseID(id)
				if err != nil {
					return err
				}
				if old, known := r.last[channel]; known && old != id {
					return fmt.Errorf("starts from %s, asked for %s", id, old)
				}
				r.last[channel] = id
			}
		case "message":
			read++
			var got int
			if _, p, err := chat.ParseID(e.ID); err != nil {
				return err
			} else if r.byPosition {
				got = int(p.Seq)
			} else if _, err := fmt.Sscan(e.Content, &got); err != nil {
				return err
			}
			if want := r.seq[e.Channel] + 1; r.seq[e.Channel] > 0 && got != want {
				return fmt.Errorf("in %q got message %d, want %d", e.Channel, got, want)
			}
			r.seq[e.Channel], r.last[e.Channel] = got, e.ID
		default:
			if !strings.HasPrefix(e.Type, "user_") {
				return fmt.Errorf("unexpected %s", text)
			}
		}
		first = false
	}
	return nil
}

// renewable is a History that can begin another epoch, empty, at any time.
type renewable struct {
	now atomic.Pointer[chat.MemoryHistory]
}

func newRenewable() *renewable {
	h := new(renewable)
	h.renew()
	return h
}

func (h *renewable) renew() { h.now.Store(chat.NewMemoryHistory(chat.MemoryLimits{})) }

func (h *renewable) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	return h.now.Load().Append(ctx, msgs...)
}

func (h *renewable) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	return h.now.Load().After(ctx, channel, p, limit)
}

func (h *renewable) Last(ctx context.Context, channel string) (chat.Position, error) {
	return h.now.Load().Last(ctx, channel)
}

// The registry may notice late that another epoch has begun. Until then no client learns
// that it missed messages and, with the same id, that it missed none.
func TestResumeInAnEpochThatTheRegistryHasNotNoticed(t *testing.T) {
	h := newRenewable()
	s := chatserver.Serve(t, chat.WithHistory(h))
	stays := s.Dial("bob") // the registry follows the channel
	id := s.Publish("", "1")[0]
	stays.WantText("1")
	h.renew()
	c := s.Dial("ana", "since", id)
	if c.Welcome.Recovered == nil || *c.Welcome.Recovered || c.Welcome.SinceIDs()[0] == id {
		t.Errorf("welcome = %+v, want it not recovered, and another id than %s", c.Welcome, id)
	}
	s.Publish("", "2")
	for _, peer := range []*chatserver.Client{stays, c} {
		peer.WantClose(int(chat.CloseTooSlow))
	}
}
