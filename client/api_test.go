package client_test

import (
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

func TestWhoIsConnectedAndDisconnecting(t *testing.T) {
	s := serve(t)
	begin := time.Now()
	names := []string{"a/b?c", "ana", "bob", "..."}
	ended := map[string]*feed{}
	for _, name := range names {
		ended[name] = follow(t, s.dial(name, client.WithChannels("of-"+name[:1])))
	}
	s.dial("ana")
	a := s.api("admin")
	got, err := a.Connected(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Since.Before(begin.Add(-time.Second)) || got[i].Since.After(time.Now().Add(time.Second)) {
			t.Errorf("%s since %v", got[i].User, got[i].Since)
		}
		got[i].Since = time.Time{}
	}
	if diff := cmp.Diff([]client.Presence{
		{User: "...", Role: "user", Connections: 1}, {User: "a/b?c", Role: "user", Connections: 1},
		{User: "ana", Role: "user", Connections: 2}, {User: "bob", Role: "user", Connections: 1},
	}, got); diff != "" {
		t.Errorf("connected (-want +got):\n%s", diff)
	}
	if got, err := a.Connected(t.Context(), "of-b"); err != nil || len(got) != 1 || got[0].User != "bob" {
		t.Errorf("in a channel: %+v, %v", got, err)
	}
	for _, name := range []string{"a/b?c", "..."} {
		if n, err := a.Disconnect(t.Context(), name); n != 1 || err != nil {
			t.Errorf("disconnecting %q: %d, %v", name, n, err)
		}
		if err := ended[name].end(); !errors.Is(err, client.ErrDisconnected) {
			t.Errorf("%q ended with %v", name, err)
		}
	}
	if n, err := a.Disconnect(t.Context(), "nobody"); n != 0 || err != nil {
		t.Errorf("disconnecting nobody: %d, %v", n, err)
	}

	for name, err := range map[string]error{
		"Connected, not an admin":  second(s.api("ana").Connected(t.Context(), "")),
		"Disconnect, not an admin": second(s.api("ana").Disconnect(t.Context(), "bob")),
		"Publish, not an admin":    second(s.api("ana").Publish(t.Context(), "hi")),
		"Messages of another's":    second(s.api("ana").Messages(t.Context(), client.Query{Channel: "@bob"})),
	} {
		if status, ok := errors.AsType[*client.StatusError](err); !ok || status.Status != http.StatusForbidden || !errors.Is(err, client.ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.Disconnect(t.Context(), ""); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("disconnecting without a name: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestMessagesAreReadPageByPage(t *testing.T) {
	s := serve(t, chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 7})))
	a := s.api("admin")
	var ids []string
	for _, text := range numbered("", 10) {
		m, err := a.Publish(t.Context(), text, client.To("ops"))
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == "" || m.Channel != "ops" || m.Sender != "admin" || m.Content != text || time.Since(m.Time) > time.Minute {
			t.Errorf("published %+v", m)
		}
		ids = append(ids, m.ID)
	}
	tests := []struct {
		name  string
		q     client.Query
		first string // content of the first message
		n     int
		more  bool
		gap   bool
	}{
		{"the oldest", client.Query{Channel: "ops"}, "4", 7, false, false},
		{"the oldest, a few", client.Query{Channel: "ops", Limit: 2}, "4", 2, true, false},
		{"after one", client.Query{After: ids[4]}, "6", 5, false, false},
		{"after one, a few", client.Query{After: ids[4], Limit: 3}, "6", 3, true, false},
		{"after one that is gone", client.Query{Channel: "ops", After: ids[0]}, "4", 7, false, true},
		{"after the last", client.Query{After: ids[9]}, "", 0, false, false},
		{"before one", client.Query{Before: ids[9], Limit: 2}, "8", 2, true, false},
		{"before the oldest", client.Query{Before: ids[3]}, "", 0, false, true},
		{"the newest", client.Query{Channel: "ops", Newest: true, Limit: 3}, "8", 3, true, false},
		{"of another channel", client.Query{}, "", 0, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			page, err := a.Messages(t.Context(), tt.q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Messages) != tt.n || page.More != tt.more || page.Gap != tt.gap || tt.n > 0 && page.Messages[0].Content != tt.first {
				t.Errorf("got %+v", page)
			}
		})
	}
	for name, q := range map[string]client.Query{
		"both ways":       {After: ids[0], Before: ids[1]},
		"newest and from": {Newest: true, After: ids[0]},
		"less than none":  {Limit: -1},
		"no id":           {After: "hello"},
		"another's id":    {Channel: "other", After: ids[0]},
	} {
		if _, err := a.Messages(t.Context(), q); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without a history there is no replay: missed messages are a gap.
func TestWithoutAHistoryWhatIsMissedIsAGap(t *testing.T) {
	s := serve(t, chat.WithoutHistory())
	p := through(t, s)
	f := follow(t, s.dial("ana"))
	want[client.Welcome](f)
	s.publish("", "1")
	f.texts(1)
	p.to("")
	p.cut()
	want[client.Lost](f)
	s.publish("", "missed")
	p.to(s.addr)
	if got := want[client.Gap](f); got.Channel != "" {
		t.Errorf("got %+v", got)
	}
	s.publish("", "live")
	if got := f.texts(1); got[0] != "live" {
		t.Errorf("got %q", got)
	}
	_, err := s.api("ana").Messages(t.Context(), client.Query{})
	if status, ok := errors.AsType[*client.StatusError](err); !ok || status.Status != http.StatusMethodNotAllowed {
		t.Errorf("Messages: %v", err)
	}
}

// A failure before the connection is open leaves nothing open.
func TestPublishingOverNoConnectionIsNotUnconfirmed(t *testing.T) {
	s := serve(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	tests := map[string]struct {
		address   string
		transport *http.Transport
	}{
		"nobody is there":               {"https://127.0.0.1:1", &http.Transport{}},
		"a certificate nobody knows":    {s.url, &http.Transport{}},
		"a handshake without an answer": {"https://" + silent.Addr().String(), &http.Transport{TLSHandshakeTimeout: 20 * time.Millisecond}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, err := client.NewAPI(tt.address, client.WithToken(s.token("admin")), client.WithHTTPClient(&http.Client{Transport: tt.transport}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err = a.Publish(within(t), "hi"); err == nil || errors.Is(err, client.ErrUnconfirmed) {
				t.Errorf("Publish: %v", err)
			}
		})
	}
}
