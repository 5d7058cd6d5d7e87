package redisregistry_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// contents is what a history has after a place, behind "gone" when it is not all.
func contents(t testing.TB, h chat.History, channel string, p chat.Position, limit int) []string {
	t.Helper()
	list := []string{}
	msgs, err := h.After(t.Context(), channel, p, chat.Limit{Count: limit})
	switch {
	case errors.Is(err, chat.ErrGone):
		list = append(list, "gone")
	case err != nil:
		t.Fatal(err)
	}
	for _, m := range msgs {
		list = append(list, m.Content)
	}
	return list
}

func wantContents(t testing.TB, h chat.History, channel string, p chat.Position, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), contents(t, h, channel, p, 1000)); diff != "" {
		t.Errorf("after %v of %q (-want +got):\n%s", p, channel, diff)
	}
}

func TestHistoryReadsBackWhatFollows(t *testing.T) {
	n := start(t, clientOf(redistest.Start(t)), redisregistry.WithCount(4))
	h := n.History()
	first, err := h.Last(t.Context(), "news")
	if err != nil || first.Epoch == "" || first.Seq != 0 {
		t.Fatalf("before the first message = %v, %v", first, err)
	}
	wantContents(t, h, "news", first)
	wantContents(t, h, "news", chat.Position{})
	n.publish("news", "1", "2", "3", "4", "5", "6")
	n.publish("other", "x")
	at := func(seq uint64) chat.Position { return chat.Position{Epoch: first.Epoch, Seq: seq} }
	if last, err := h.Last(t.Context(), "news"); err != nil || last != at(6) {
		t.Errorf("last = %v, %v; want %v", last, err, at(6))
	}
	tests := []struct {
		name  string
		after chat.Position
		limit int
		want  []string
	}{
		{"the zero place", chat.Position{}, 10, []string{"3", "4", "5", "6"}},
		{"the zero place, a page", chat.Position{}, 2, []string{"3", "4"}},
		{"before the first", first, 10, []string{"gone", "3", "4", "5", "6"}},
		{"before what is kept", at(1), 10, []string{"gone", "3", "4", "5", "6"}},
		{"before what is kept, a page", at(1), 2, []string{"gone", "3", "4"}},
		{"right before what is kept", at(2), 10, []string{"3", "4", "5", "6"}},
		{"one in between, a page", at(3), 2, []string{"4", "5"}},
		{"the newest", at(6), 10, []string{}},
		{"nothing asked for", at(3), 0, []string{}},
		{"nothing asked for of what is gone", at(0), 0, []string{"gone"}},
		{"one to come", at(7), 10, []string{"gone", "3", "4", "5", "6"}},
		{"far beyond", at(1<<64 - 1), 10, []string{"gone", "3", "4", "5", "6"}},
		{"another epoch", chat.Position{Epoch: "another", Seq: 4}, 10, []string{"gone", "3", "4", "5", "6"}},
		{"another epoch's beginning", chat.Position{Epoch: "another"}, 10, []string{"gone", "3", "4", "5", "6"}},
		{"no epoch", chat.Position{Seq: 4}, 10, []string{"gone", "3", "4", "5", "6"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, contents(t, h, "news", tt.after, tt.limit)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHistoryKeepsAMessageAsItIs(t *testing.T) {
	n := start(t, clientOf(redistest.Start(t)))
	for _, channel := range []string{"", "@auth0|ana {1} \"é\"", "a:b_c.d-e"} {
		for _, content := range []string{"plain", "é <b> & \u2028 \n\"", "1 2 3", "{}"} {
			want := chat.Message{Channel: channel, Sender: "ana bo", Content: content, Time: time.Now().UTC().Truncate(time.Millisecond)}
			got, err := n.History().Append(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			want.Position = got[0].Position
			back, err := n.History().After(t.Context(), channel, chat.Position{Epoch: got[0].Position.Epoch, Seq: got[0].Position.Seq - 1}, chat.Limit{Count: 1})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]chat.Message{want, want}, append(back, got...)); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		}
	}
}

func TestHistoryForgetsWithAge(t *testing.T) {
	n := start(t, clientOf(redistest.Start(t)), redisregistry.WithAge(300*time.Millisecond))
	n.publish("quiet", "1")
	first := n.publish("busy", "1")
	eventually(t, "the old ones to go", func() bool {
		n.publish("busy", "x")
		_, err := n.History().After(t.Context(), "busy", chat.Position{Epoch: first.Position.Epoch}, chat.Limit{Count: 1})
		return errors.Is(err, chat.ErrGone)
	})
	eventually(t, "the quiet channel's to go", func() bool { return len(contents(t, n.History(), "quiet", chat.Position{}, 1)) == 0 })
	p := n.publish("quiet", "2").Position
	if p.Seq != 2 {
		t.Errorf("place = %v, want the second", p)
	}
	wantContents(t, n.History(), "quiet", chat.Position{Epoch: p.Epoch}, "gone", "2")
	wantContents(t, n.History(), "quiet", chat.Position{Epoch: p.Epoch, Seq: 1}, "2")
}

// faultyConn loses the answer to what is written while it is armed, and then its
// connection.
type faultyConn struct {
	net.Conn
	armed *atomic.Int32
	only  string // what has to be in it; "": anything
	lose  atomic.Bool
}

func (c *faultyConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.lose.Store(err == nil && bytes.Contains(b, []byte(c.only)) && c.armed.Load() > 0 && c.armed.Add(-1) >= 0)
	return n, err
}

func (c *faultyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b) // Redis has done it
	if c.lose.Load() && err == nil {
		_ = c.Conn.Close()
		return 0, io.EOF
	}
	return n, err
}

// losing makes a client that loses an answer for each that it is armed for, and tries
// again by itself so many times.
func losing(s *redistest.Server, armed *atomic.Int32, only string, retries int) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: s.Addr, MaxRetries: retries,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &faultyConn{Conn: conn, armed: armed, only: only}, err
		},
	})
}

func TestAPublishSentAgainIsStoredOnce(t *testing.T) {
	s := redistest.Start(t)
	var armed atomic.Int32
	client := losing(s, &armed, "", 3)
	n := start(t, client, redisregistry.WithTimeout(20*time.Second)) // no probe for 10 s
	ana := n.connect("ana")
	n.publish("", "1")
	armed.Store(1)
	p, err := n.try("", "2")
	if armed.Load() > 0 {
		t.Fatal("no answer was lost")
	}
	if err != nil || p.Position.Seq != 2 {
		t.Errorf("place %v, %v; want the second", p.Position, err)
	}
	n.publish("", "3")
	wantContents(t, n.History(), "", chat.Position{}, "1", "2", "3")
	ana.wantGot(t, "", "1", "2", "3")
}

// fillBucket adds as many channels to a bucket as it may have.
func fillBucket(t *testing.T, admin *redis.Client, positions string) {
	t.Helper()
	const fill = `for i = 1, 5000 do redis.call('HSET', KEYS[1], ':gone' .. ARGV[1] .. i, 1) end`
	for part := range 100 { // a server that is busy for long is taken for dead
		if err := admin.Eval(t.Context(), fill, []string{positions}, fmt.Sprint(part, ".")).Err(); err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
	}
}

func TestTooManyChannelsBeginAnEpoch(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := start(t, clientOf(s), longTimeout)
	before := n.publish("news", "1", "2").Position
	admin := s.Client()
	defer admin.Close()
	// As many as may be have come and gone since.
	places := fmt.Sprintf("chat:{%d}:positions", bucketOf("news"))
	fillBucket(t, admin, places)
	if p := n.publish("news", "3").Position; p.Epoch != before.Epoch || p.Seq != 3 {
		t.Errorf("a known channel goes on with %v", p)
	}
	// Some other channel of the same bucket: the epoch is the bucket's.
	for i := 0; ; i++ {
		p := n.publish(fmt.Sprint("other", i), "x").Position
		size, err := admin.HLen(t.Context(), places).Result()
		if err != nil || i == 10_000 {
			t.Fatal(size, err)
		}
		if size < 10 {
			if p.Seq != 1 || p.Epoch == before.Epoch {
				t.Errorf("a new channel's first place is %v", p)
			}
			break
		}
	}
	wantContents(t, n.History(), "news", before, "gone")
	if p := n.publish("news", "4").Position; p.Epoch == before.Epoch || p.Seq != 1 {
		t.Errorf("the channel goes on with %v", p)
	}
	wantContents(t, n.History(), "news", chat.Position{}, "4")
}

// Who may publish to any name makes others begin an epoch, but not everyone's channel,
// nor those of users.
func TestTooManyChannelsOfAnyNameLeaveOthersAlone(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := start(t, clientOf(s), longTimeout)
	admin := s.Client()
	defer admin.Close()
	for _, channel := range []string{"", "@ana"} {
		before := n.publish(channel, "1").Position
		all, err := admin.Keys(t.Context(), "chat:{*}:positions").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range all {
			if in, err := admin.HExists(t.Context(), key, ":"+channel).Result(); err != nil {
				t.Fatal(err)
			} else if !in {
				continue
			}
			fillBucket(t, admin, key)
		}
		for i := range 2000 {
			n.publish(fmt.Sprint("any", i), "x")
		}
		wantContents(t, n.History(), channel, before)
		if p := n.publish(channel, "2").Position; p.Epoch != before.Epoch || p.Seq != 2 {
			t.Errorf("%q goes on with %v behind %v", channel, p, before)
		}
	}
}

// No more of a channel is loaded into Redis' script than comes back.
func TestReadingALongChannelReadsALittleOfIt(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, clientOf(s))
	other := s.Client()
	defer other.Close()
	var places []chat.Position
	for range 300 {
		places = append(places, n.publish("news", strings.Repeat("x", 32<<10)).Position)
	}
	for i := range 300 {
		n.publish("short", fmt.Sprint(i))
	}
	tests := []struct {
		name, channel string
		after         chat.Position
		limit         chat.Limit
		read, came    int // messages
	}{
		{"from the beginning", "news", chat.Position{}, chat.Limit{Count: 1000, Bytes: 64 << 10}, 4, 2},
		{"from somewhere", "news", places[100], chat.Limit{Count: 1000, Bytes: 64 << 10}, 4, 2},
		{"from what is not known", "news", chat.Position{Epoch: "another", Seq: 1}, chat.Limit{Count: 1000, Bytes: 64 << 10}, 4, 2},
		{"one", "news", places[5], chat.Limit{Count: 1, Bytes: 64 << 10}, 1, 1},
		{"less than one", "news", places[5], chat.Limit{Count: 1000, Bytes: 1}, 1, 1},
		{"many", "news", places[5], chat.Limit{Count: 1000, Bytes: 1 << 20}, 40, 32},
		{"short ones", "short", chat.Position{}, chat.Limit{Count: 100, Bytes: 64 << 10}, 100, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			monitor, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer monitor.Close()
			lines := bufio.NewScanner(monitor)
			if _, err := io.WriteString(monitor, "MONITOR\r\n"); err != nil || !lines.Scan() {
				t.Fatal(err, lines.Err())
			}
			msgs, err := n.History().After(t.Context(), tt.channel, tt.after, tt.limit)
			if err != nil && !errors.Is(err, chat.ErrGone) {
				t.Fatal(err)
			}
			if err := other.Echo(t.Context(), "the end").Err(); err != nil {
				t.Fatal(err)
			}
			read := 0
			for lines.Scan() {
				line := lines.Text()
				if strings.Contains(line, "the end") {
					break
				}
				if _, count, ok := strings.Cut(line, `"COUNT" "`); ok && strings.Contains(line, `"XRANGE"`) {
					var n int
					_, _ = fmt.Sscan(strings.TrimRight(count, "\"\r"), &n)
					read += n
				}
			}
			if read < len(msgs) || read > tt.read || len(msgs) != tt.came {
				t.Errorf("%d messages came, %d were read, want %d and at most %d", len(msgs), read, tt.came, tt.read)
			}
		})
	}
}

// Also when Redis forgets the scripts that they run.
func TestManyPublishersGetContiguousPlaces(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	admin := s.Client()
	defer admin.Close()
	places := make(chan uint64)
	const publishers, each = 64, 50
	for i := range publishers {
		go func() {
			for range each {
				m, err := []*node{a, b}[i%2].try("news", fmt.Sprint(i))
				if err != nil {
					t.Error(err)
				}
				places <- m.Position.Seq
			}
		}()
	}
	got := make(map[uint64]int)
	want := make(map[uint64]int)
	for i := range uint64(publishers * each) {
		if i%100 == 0 {
			if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
				t.Error(err)
			}
		}
		got[<-places]++
		want[i+1]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}
