package chattest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/wsdial"
)

// TestHoles tests how a history, and a service with it, handle messages that are missing
// between others, for example because somebody deleted them by hand. It calls open once for
// each test. open returns an empty history, and a function that removes the message with a
// sequence number and nothing else.
func TestHoles(t *testing.T, open func(t *testing.T) (h chat.History, remove func(channel string, seq uint64))) {
	tests := []struct {
		name string
		run  func(sieve)
	}{
		{"AfterGoesOnBehindAHole", testAfterHoles},
		{"PagesSkipHolesAndSaySo", testPagesOverHoles},
		{"ResumingOverAHoleIsALoss", testResumeOverAHole},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, remove := open(t)
			tt.run(sieve{archive{t, []chat.History{h}}, remove})
		})
	}
}

// sieve is a test with a history that has holes.
type sieve struct {
	archive
	remove func(channel string, seq uint64)
}

// pattern is a channel with messages, some of which are missing.
type pattern struct {
	channel string
	epoch   string
	count   int
	gone    []bool // by sequence number
}

// patterns makes channels with holes at the beginning, in the middle and at the end.
func (s sieve) patterns() []pattern {
	s.Helper()
	list := make([]pattern, 0, 100)
	var making sync.WaitGroup // concurrently, because each message waits for a disk
	add := func(channel string, count int, holes []uint64) {
		list = append(list, pattern{})
		into := &list[len(list)-1]
		making.Go(func() { *into = s.pattern(channel, count, holes) })
	}
	for i, holes := range [][]uint64{
		{}, {1}, {5}, {9}, {1, 9}, {4, 5, 6}, {1, 2, 3}, {7, 8, 9}, {2, 4, 6, 8}, {1, 3, 5, 7, 9},
		{2, 3, 4, 5, 6, 7, 8}, {1, 2, 3, 4, 6, 7, 8, 9}, {1, 2, 3, 4, 5, 6, 7, 8}, {2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 3, 4, 5, 6, 7, 8, 9},
	} {
		add(fmt.Sprint("chosen", i), 9, holes)
	}
	dice := rand.New(rand.NewPCG(1, 2)) // always the same holes
	for i := range 6 {
		var holes []uint64
		for seq := range uint64(30) {
			if dice.IntN(6) > i {
				holes = append(holes, seq+1)
			}
		}
		add(fmt.Sprint("thrown", i), 30, holes)
	}
	making.Wait()
	return list
}

func (s sieve) pattern(channel string, count int, holes []uint64) pattern {
	s.Helper()
	p := pattern{channel: channel, count: count, gone: make([]bool, count+2)}
	for i := range count {
		p.epoch = s.append(0, channel, fmt.Sprint(i+1)).Epoch
	}
	for _, seq := range holes {
		s.remove(channel, seq)
		p.gone[seq] = true
	}
	return p
}

// kept returns the sequence numbers of the messages from from to to that are kept.
func (p pattern) kept(from, to int) (list []int) {
	for seq := max(from, 1); seq <= min(to, p.count); seq++ {
		if !p.gone[seq] {
			list = append(list, seq)
		}
	}
	return list
}

// run returns the first kept messages from a sequence number on, up to a hole or the limit.
func (p pattern) run(from, limit int) []int {
	kept := p.kept(from, p.count)
	for i := range kept {
		if i == limit || kept[i] != kept[0]+i {
			return kept[:i]
		}
	}
	return kept
}

// "Otherwise the error wraps ErrGone and comes with messages": those after the hole, or the
// oldest that are kept.
func testAfterHoles(s sieve) {
	for _, p := range s.patterns() {
		for _, limit := range []int{0, 1, 2, 100} {
			check := func(at chat.Position, want []int, wantGone bool) {
				s.Helper()
				msgs, err := s.at(0).After(s.Context(), p.channel, at, chat.Limit{Count: limit})
				if gone := errors.Is(err, chat.ErrGone); gone != wantGone || err != nil && !gone {
					s.Errorf("%s, after %v, limit %d: %v, want ErrGone: %v", p.channel, at, limit, err, wantGone)
				}
				got := []int{}
				for _, m := range msgs {
					got = append(got, int(m.Position.Seq))
					if m.Position.Epoch != p.epoch || m.Content != fmt.Sprint(m.Position.Seq) || m.Channel != p.channel {
						s.Errorf("%s, after %v: message %+v", p.channel, at, m)
					}
				}
				if diff := cmp.Diff(append([]int{}, want...), got); diff != "" {
					s.Errorf("%s, after %v, limit %d (-want +got):\n%s", p.channel, at, limit, diff)
				}
			}
			oldest := p.run(1, limit)
			check(chat.Position{}, oldest, false)
			check(chat.Position{Epoch: "another", Seq: 3}, oldest, true)
			check(chat.Position{Epoch: p.epoch, Seq: uint64(p.count) + 1}, oldest, true)
			for seq := range p.count + 1 {
				check(chat.Position{Epoch: p.epoch, Seq: uint64(seq)}, p.run(seq+1, limit), p.gone[seq+1])
			}
		}
	}
}

// office is a test with a service on a history, and a user's token.
type office struct {
	*testing.T
	server *httptest.Server
	token  string
}

func (a archive) office() office {
	a.Helper()
	signer, err := chat.NewHS256([]byte("a test's secret of 32 bytes, no less"))
	if err != nil {
		a.Fatal(err)
	}
	service, err := chat.New(signer, chat.WithHistory(a.at(0)), chat.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		a.Fatal(err)
	}
	server := httptest.NewServer(service)
	a.Cleanup(func() {
		if err := service.Shutdown(context.WithoutCancel(a.Context())); err != nil {
			a.Error(err)
		}
		server.Close()
	})
	token, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleAdmin})
	if err != nil {
		a.Fatal(err)
	}
	return office{a.T, server, token.AccessToken}
}

// page is an answer of GET /messages.
type page struct {
	seqs      []int
	ids       []string
	more, gap bool
}

func (o office) page(query url.Values) (p page) {
	o.Helper()
	req, err := http.NewRequestWithContext(o.Context(), http.MethodGet, o.server.URL+"/messages?"+query.Encode(), nil)
	if err != nil {
		o.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+o.token)
	resp, err := o.server.Client().Do(req)
	if err != nil {
		o.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Messages  []struct{ ID string }
		More, Gap bool
	}
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		o.Fatalf("GET /messages?%s: %s %s %v", query.Encode(), resp.Status, text, err)
	}
	p.more, p.gap = answer.More, answer.Gap
	for _, m := range answer.Messages {
		_, position, err := chat.ParseID(m.ID)
		if err != nil {
			o.Fatal(err)
		}
		p.ids, p.seqs = append(p.ids, m.ID), append(p.seqs, int(position.Seq))
	}
	return p
}

// Pages continue after a hole, forward and backward, report it, and end.
func testPagesOverHoles(s sieve) {
	o := s.office()
	for _, p := range s.patterns() {
		for _, limit := range []int{1, 2, 4, 100} {
			o.forward(p, limit)
			o.backward(p, limit)
		}
	}
}

// forward reads all of a pattern from before its first message.
func (o office) forward(p pattern, limit int) {
	o.Helper()
	got, at := []int{}, 0
	for more := true; more; {
		page := o.page(url.Values{"after": {chat.FormatID(p.channel, chat.Position{Epoch: p.epoch, Seq: uint64(at)})}, "limit": {fmt.Sprint(limit)}})
		if want := p.run(at+1, limit); !slices.Equal(page.seqs, want) {
			o.Errorf("%s, after %d, limit %d: %v, want %v", p.channel, at, limit, page.seqs, want)
			return
		}
		if page.gap != p.gone[at+1] {
			o.Errorf("%s, after %d, limit %d: gap %v", p.channel, at, limit, page.gap)
		}
		got = append(got, page.seqs...)
		if more = page.more; len(page.seqs) > 0 {
			at = page.seqs[len(page.seqs)-1]
		}
		// If no kept message follows, a hole at the end is not reported yet.
		if want := len(page.seqs) > 0 && at < p.count; more != want {
			o.Errorf("%s, the page to %d, limit %d: more %v, want %v", p.channel, at, limit, more, want)
			return
		}
	}
	if diff := cmp.Diff(append([]int{}, p.kept(1, p.count)...), got); diff != "" {
		o.Errorf("%s forward, limit %d (-want +got):\n%s", p.channel, limit, diff)
	}
}

// backward reads all of a pattern from its newest message on.
func (o office) backward(p pattern, limit int) {
	o.Helper()
	got, end, before := []int{}, p.count+1, ""
	for more := true; more; {
		page := o.page(url.Values{"channel": {p.channel}, "before": {before}, "limit": {fmt.Sprint(limit)}})
		rest := p.kept(1, end-1)
		if len(page.seqs) == 0 {
			if len(rest) > 0 || page.more || page.gap != (end > 1) {
				o.Errorf("%s, before %d, limit %d: nothing, more %v, gap %v, want %v", p.channel, end, limit, page.more, page.gap, rest)
			}
			break
		}
		first, last := page.seqs[0], page.seqs[len(page.seqs)-1]
		if len(page.seqs) > limit || !slices.Equal(page.seqs, p.run(first, len(page.seqs))) || len(rest) == 0 || last != rest[len(rest)-1] {
			o.Errorf("%s, before %d, limit %d: %v of %v", p.channel, end, limit, page.seqs, rest)
			return
		}
		full := len(page.seqs) == limit && first > 1 && !p.gone[first-1]
		if want := last+1 < end || !full && first > 1; page.gap != want {
			o.Errorf("%s, before %d, limit %d: %v, gap %v, want %v", p.channel, end, limit, page.seqs, page.gap, want)
		}
		if !full && first > 1 && !p.gone[first-1] {
			o.Errorf("%s, before %d, limit %d: %v ends early", p.channel, end, limit, page.seqs)
		}
		if want := len(p.kept(1, first-1)) > 0; page.more != want {
			o.Errorf("%s, before %d, limit %d: %v, more %v, want %v", p.channel, end, limit, page.seqs, page.more, want)
			return
		}
		got = append(append([]int{}, page.seqs...), got...)
		end, before, more = first, page.ids[0], page.more
	}
	if diff := cmp.Diff(append([]int{}, p.kept(1, p.count)...), got); diff != "" {
		o.Errorf("%s backward, limit %d (-want +got):\n%s", p.channel, limit, diff)
	}
}

// frame is the part of an event that the tests check.
type frame struct {
	Type, ID  string
	Since     []string
	Recovered *bool
}

// socket opens a socket that resumes from an id. It returns the welcome too.
func (o office) socket(since string) (*wsdial.Client, frame) {
	o.Helper()
	dialer := wsdial.Dialer{HTTP: o.server.Client(), Subprotocol: "chat.v1", ReadLimit: 1 << 20}
	client, err := dialer.Dial(o.Context(), "ws"+strings.TrimPrefix(o.server.URL, "http")+"/ws/chat?"+url.Values{"since": {since}}.Encode(),
		http.Header{"Authorization": {"Bearer " + o.token}})
	if err != nil {
		o.Fatal(err)
	}
	o.Cleanup(client.Cut)
	welcome, err := read(o.Context(), client)
	if err != nil || welcome.Type != "welcome" {
		o.Fatalf("the first frame is %+v, %v, want a welcome", welcome, err)
	}
	return client, welcome
}

func read(ctx context.Context, c *wsdial.Client) (f frame, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	text, err := c.Read(ctx)
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	return f, err
}

// A socket that resumes gets the messages before the hole and is closed with 4003. Resuming
// from there reports the loss, once.
func testResumeOverAHole(s sieve) {
	p := s.pattern("", 6, []uint64{4, 5})
	o := s.office()
	id := func(seq uint64) string { return chat.FormatID("", chat.Position{Epoch: p.epoch, Seq: seq}) }
	client, welcome := o.socket(id(1))
	if welcome.Recovered == nil || !*welcome.Recovered {
		s.Errorf("recovered: %v when the next message is kept", welcome.Recovered)
	}
	var got []string
	for {
		f, err := read(s.Context(), client)
		if err != nil {
			var closed *wsdial.CloseError
			if !errors.As(err, &closed) || closed.Code != int(chat.CloseTooSlow) {
				s.Errorf("the socket ended with %v, want 4003", err)
			}
			break
		}
		if f.Type == "message" {
			got = append(got, f.ID)
		}
	}
	if diff := cmp.Diff([]string{id(2), id(3)}, got); diff != "" {
		s.Errorf("before the hole (-want +got):\n%s", diff)
	}
	client, welcome = o.socket(id(3))
	if welcome.Recovered == nil || *welcome.Recovered {
		s.Errorf("recovered: %v when the next message is missing", welcome.Recovered)
	}
	// Resuming from the new position works.
	start := welcome.Since[slices.IndexFunc(welcome.Since, func(id string) bool { c, _, _ := chat.ParseID(id); return c == "" })]
	if start != id(6) {
		s.Errorf("joined at %s, want %s", start, id(6))
	}
	client.Close(1000, "")
	_, welcome = o.socket(start)
	if welcome.Recovered == nil || !*welcome.Recovered {
		s.Errorf("recovered: %v after the hole", welcome.Recovered)
	}
}
