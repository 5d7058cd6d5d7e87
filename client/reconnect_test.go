package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

func TestNothingIsLostOrRepeatedAcrossCuts(t *testing.T) {
	const cuts, each = 30, 400
	s := serve(t)
	p := through(t, s)
	c := s.dial("ana", client.WithChannels("ops"))
	channels := []string{"", "ops", "@ana"}
	ctx := within(t)
	up := make(chan struct{}, cuts+2)
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for i, text := range numbered("", each) {
			for _, channel := range channels {
				s.publish(channel, text)
			}
			if i%(each/cuts) == 0 {
				select {
				case <-up:
				case <-ctx.Done():
				}
				p.cut() // also while it catches up
			}
		}
	})
	got := map[string][]string{}
	connected, total := 0, 0
	for event, err := range c.Events(ctx) {
		if err != nil {
			t.Error(err)
			break
		}
		switch e := event.(type) {
		case client.Welcome:
			up <- struct{}{}
			if connected++; connected > 1 && !e.Resumed {
				t.Errorf("got %+v", e)
			}
		case client.Message:
			got[e.Channel] = append(got[e.Channel], e.Content)
			total++
		case client.Gap:
			t.Errorf("got %+v", e)
		}
		if total == len(channels)*each {
			break
		}
	}
	publishing.Wait()
	for _, channel := range channels {
		if diff := cmp.Diff(numbered("", each), got[channel]); diff != "" {
			t.Errorf("messages of %q (-want +got):\n%s", channel, diff)
		}
	}
	if connected < cuts {
		t.Errorf("connected %d times only", connected)
	}
}

// A server that kept its history in memory and was restarted does not know the client's
// positions. The client reports a gap, then delivers the messages of the new history.
func TestARestartWithoutHistoryIsAGap(t *testing.T) {
	s := serve(t)
	p := through(t, s)
	c := s.dial("ana", client.WithChannels("ops"))
	f := follow(t, c)
	s.publish("", "before")
	s.publish("ops", "before")
	f.texts(2)
	since := c.Since()

	again := serve(t)
	again.publish("", numbered("sent meanwhile ", 3)...)
	again.publish("@ana", "to her")
	p.to(again.addr)
	p.cut()
	if want[client.Lost](f).Err == nil {
		t.Error("Lost without an error")
	}
	if want[client.Welcome](f).Resumed {
		t.Error("Resumed, it says")
	}
	for i, channel := range []string{"", "@ana", "ops"} {
		if diff := cmp.Diff(client.Gap{Channel: channel, After: since[i]}, want[client.Gap](f)); diff != "" {
			t.Errorf("gap (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff([]string{"sent meanwhile 1", "sent meanwhile 2", "sent meanwhile 3", "to her"}, f.texts(4)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	again.publish("", "live")
	again.publish("ops", "the first there")
	if got := f.texts(2); !cmp.Equal(got, []string{"live", "the first there"}) && !cmp.Equal(got, []string{"the first there", "live"}) {
		t.Errorf("got %q", got)
	}

	// Another client can resume from its present position.
	again.publish("", "for the next")
	next, err := again.tryDial(client.WithToken(s.token("ana")), client.WithChannels("ops"), client.WithSince(c.Since()...))
	if err != nil {
		t.Fatal(err)
	}
	f = follow(t, next)
	if !want[client.Welcome](f).Resumed {
		t.Error("not resumed")
	}
	if got := f.texts(1); got[0] != "for the next" {
		t.Errorf("got %q", got)
	}
}

func TestWhatTheHistoryStillHasFollowsTheGap(t *testing.T) {
	tests := []struct {
		name            string
		kept, published int
		opts            []client.Option
	}{
		{"one", 1, 10, nil},
		{"a few", 3, 10, nil},
		{"many pages", 2500, 3000, nil},
		{"more than may wait", 2500, 3000, []client.Option{client.WithEventLimit(10, 100)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: tt.kept})))
			p := through(t, s)
			c := s.dial("ana", tt.opts...)
			f := follow(t, c)
			s.publish("", "0")
			f.texts(1)
			since := c.Since()[0]
			p.to("")
			p.cut()
			want[client.Lost](f)
			all := numbered("", tt.published)
			s.publish("", all...)
			p.to(s.addr)
			if diff := cmp.Diff(client.Gap{After: since}, want[client.Gap](f)); diff != "" {
				t.Errorf("gap (-want +got):\n%s", diff)
			}
			expected := append(all[tt.published-tt.kept:], "live 1", "live 2")
			got := f.texts(1)
			s.publish("", "live 1", "live 2") // while the rest is fetched
			got = append(got, f.texts(len(expected)-1)...)
			if diff := cmp.Diff(expected, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

// The user channel may be named like any other channel, with an id to resume from.
func TestTheUserChannelCanBeNamed(t *testing.T) {
	s := serve(t)
	c := s.dial("ana", client.WithChannels("@ana", "ops"))
	f := follow(t, c)
	s.publish("@ana", "1")
	s.publish("ops", "1")
	f.texts(2)
	if diff := cmp.Diff([]string{"ops"}, c.Channels()); diff != "" {
		t.Errorf("Channels (-want +got):\n%s", diff)
	}
	since := c.Since()
	c.Close()
	s.publish("@ana", "2")
	s.publish("ops", "2")
	c = s.dial("ana", client.WithChannels("ops", "@ana"), client.WithSince(since[0], "", since[2], since[1]))
	f = follow(t, c)
	if !want[client.Welcome](f).Resumed {
		t.Error("not resumed")
	}
	if diff := cmp.Diff([]string{"2", "2"}, f.texts(2)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestATokenOfAnotherUserEndsTheClient(t *testing.T) {
	s := serveWith(t, first(1, 1, answer(http.StatusUnauthorized)))
	p := through(t, s)
	var asked atomic.Int32
	c, err := s.tryDial(client.WithTokenSource(client.TokenSourceFunc(func(context.Context) (string, error) {
		if asked.Add(1) == 1 {
			return s.token("ana"), nil
		}
		return s.token("bob"), nil
	})))
	if err != nil {
		t.Fatal(err)
	}
	f := follow(t, c)
	want[client.Welcome](f)
	p.cut()
	if err := f.end(); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "bob") {
		t.Errorf("ended with %v", err)
	}
}
