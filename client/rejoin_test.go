package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

// hundred are the names of channels whose ids take over 8 KiB in an address.
func hundred() (names []string) {
	for i := range 100 {
		names = append(names, fmt.Sprintf("tenant-%02d.team.notifications:region:eu-central-1", i))
	}
	return names
}

// strict is a proxy that rejects long request lines.
func strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.RequestURI) > 2200 {
			w.WriteHeader(http.StatusRequestURITooLong)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestAHundredChannelsAreResumedWithAShortAddress(t *testing.T) {
	t.Parallel()
	s := serveWith(t, strict)
	p := through(t, s)
	channels := hundred()
	c := s.dial("ana", client.WithChannels(channels...))
	// Dial has returned, so the client is in all channels.
	for _, channel := range channels {
		s.publish(channel, "first in "+channel)
	}
	f := follow(t, c)
	if e := want[client.Welcome](f); e.Resumed {
		t.Errorf("the first connection resumed: %+v", e)
	}
	got := map[string][]string{}
	take := func(n int) {
		for range n {
			m := want[client.Message](f)
			got[m.Channel] = append(got[m.Channel], m.Content)
		}
	}
	take(len(channels))
	p.to("")
	p.cut()
	want[client.Lost](f)
	for _, channel := range channels {
		s.publish(channel, "missed in "+channel, "and more in "+channel)
	}
	p.to(s.addr)
	if e := want[client.Welcome](f); !e.Resumed {
		t.Errorf("got %+v", e)
	}
	take(2 * len(channels))
	for _, channel := range channels {
		s.publish(channel, "live in "+channel)
	}
	take(len(channels))
	for _, channel := range channels {
		want := []string{"first in " + channel, "missed in " + channel, "and more in " + channel, "live in " + channel}
		if diff := cmp.Diff(want, got[channel]); diff != "" {
			t.Errorf("messages of %s (-want +got):\n%s", channel, diff)
		}
	}
	if diff := cmp.Diff(channels, c.Channels()); diff != "" {
		t.Errorf("channels (-want +got):\n%s", diff)
	}
}

// The connection breaks while channels are being joined, again and again.
func TestNothingIsLostOrRepeatedWhenJoinsAreCutOff(t *testing.T) {
	t.Parallel()
	const each = 8
	var joining atomic.Int32 // counts what is asked of the policy
	s := serveWith(t, strict, chat.WithPolicy(countingPolicy{&joining}), chat.WithCommandRate(0, 0))
	p := through(t, s)
	channels := hundred()
	c := s.dial("ana", client.WithChannels(channels...))
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range each {
			for _, channel := range channels {
				s.publish(channel, fmt.Sprint(i))
			}
			// Some are joined again, and others not.
			joined := joining.Load()
			p.cut()
			for joining.Load() < joined+int32(20+9*i) && ctx.Err() == nil {
				<-time.After(time.Millisecond)
			}
		}
	}()
	got := map[string][]string{}
	total := 0
	for event, err := range c.Events(ctx) {
		if err != nil {
			t.Error(err)
			break
		}
		switch e := event.(type) {
		case client.Welcome:
			if total > 0 && !e.Resumed {
				t.Errorf("got %+v", e)
			}
		case client.Gap:
			t.Errorf("got %+v", e)
		case client.Message:
			got[e.Channel] = append(got[e.Channel], e.Content)
			total++
		}
		if total == each*len(channels) {
			break
		}
	}
	cancel()
	<-done
	var want []string
	for i := range each {
		want = append(want, fmt.Sprint(i))
	}
	for _, channel := range channels {
		if diff := cmp.Diff(want, got[channel]); diff != "" {
			t.Errorf("messages of %s (-want +got):\n%s", channel, diff)
		}
	}
}

type countingPolicy struct{ joins *atomic.Int32 }

func (p countingPolicy) Join(context.Context, chat.Identity, string) error {
	p.joins.Add(1)
	return nil
}

func (countingPolicy) Publish(context.Context, chat.Identity, string) error { return nil }

// A channel that has no room in the address and cannot resume is a gap like any other.
func TestAGapInAChannelThatIsJoinedLate(t *testing.T) {
	t.Parallel()
	s := serveWith(t, strict, keep(3))
	p := through(t, s)
	channels := hundred()
	last := channels[99]
	f := follow(t, s.dial("admin", client.WithChannels(channels...)))
	s.publish(last, "the first")
	f.texts(1)
	p.to("")
	p.cut()
	want[client.Lost](f)
	s.publish(last, numbered("", 10)...)
	p.to(s.addr)
	if e := want[client.Welcome](f); e.Resumed {
		t.Errorf("got %+v", e)
	}
	if e := want[client.Gap](f); e.Channel != last {
		t.Errorf("got %+v", e)
	}
	if diff := cmp.Diff([]string{"8", "9", "10"}, f.texts(3)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	s.publish(last, "live")
	if got := f.texts(1); got[0] != "live" {
		t.Errorf("got %q", got)
	}
}

// A client may miss more messages than its queue holds.
func TestManyChannelsWithMoreThanMayWait(t *testing.T) {
	t.Parallel()
	const each = 20
	s := serveWith(t, strict)
	p := through(t, s)
	channels := hundred()
	c := s.dial("admin", client.WithChannels(channels...), client.WithEventLimit(8, 1<<20))
	f := follow(t, c)
	want[client.Welcome](f)
	p.to("")
	p.cut()
	want[client.Lost](f)
	for _, channel := range channels {
		s.publish(channel, numbered("", each)...)
	}
	p.to(s.addr)
	got := map[string][]string{}
	for range each * len(channels) {
		m := want[client.Message](f)
		got[m.Channel] = append(got[m.Channel], m.Content)
	}
	for _, channel := range channels {
		if diff := cmp.Diff(numbered("", each), got[channel]); diff != "" {
			t.Errorf("messages of %s (-want +got):\n%s", channel, diff)
		}
	}
}

type closedChannel struct {
	countingPolicy
	name   string
	closed atomic.Bool
}

func (p *closedChannel) Join(_ context.Context, _ chat.Identity, channel string) error {
	if p.closed.Load() && channel == p.name {
		return chat.ErrForbidden
	}
	return nil
}

// A channel that the user may not join ends the client, whether or not the address
// has room for it.
func TestAChannelThatMayNotBeJoinedEndsTheClient(t *testing.T) {
	t.Parallel()
	channels := hundred()
	for name, channel := range map[string]string{"in the address": channels[0], "joined late": channels[99]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := &closedChannel{name: channel}
			s := serveWith(t, strict, chat.WithPolicy(policy))
			p := through(t, s)
			f := follow(t, s.dial("admin", client.WithChannels(channels...)))
			policy.closed.Store(true)
			p.cut()
			if err := f.end(); !errors.Is(err, client.ErrForbidden) {
				t.Errorf("it ends with %v", err)
			}
			if _, err := s.tryDial(client.WithToken(s.token("admin")), client.WithChannels(channels...)); !errors.Is(err, client.ErrForbidden) {
				t.Errorf("Dial: %v", err)
			}
		})
	}
}

// If a server limits commands, the client slows down before the server closes the socket.
func TestManyChannelsAreJoinedAtAServersPace(t *testing.T) {
	t.Parallel()
	s := serveWith(t, strict, chat.WithCommandRate(20, 3))
	channels := hundred()[:50]
	c := s.dial("ana", client.WithChannels(channels...))
	f := follow(t, c)
	want[client.Welcome](f)
	s.publish(channels[49], "hello")
	if got := f.texts(1); got[0] != "hello" {
		t.Errorf("got %q", got)
	}
}

// A program joins and leaves channels that the client is about to join.
func TestChannelsAreLeftAndJoinedWhileTheyAreJoinedAgain(t *testing.T) {
	t.Parallel()
	s := serveWith(t, strict)
	p := through(t, s)
	channels := hundred()
	c := s.dial("ana", client.WithChannels(channels...))
	f := follow(t, c)
	want[client.Welcome](f)
	p.to("")
	p.cut()
	want[client.Lost](f)
	left, kept := channels[98], channels[99]
	s.publish(left, "for nobody")
	s.publish(kept, "missed")
	p.to(s.addr)
	for what, err := range map[string]error{"Leave": c.Leave(t.Context(), left), "Join": c.Join(t.Context(), kept)} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if e := want[client.Welcome](f); !e.Resumed {
		t.Errorf("got %+v", e)
	}
	if got := f.texts(1); got[0] != "missed" {
		t.Errorf("got %q", got)
	}
	s.publish(left, "for nobody")
	s.publish(channels[97], "live")
	if got := f.texts(1); got[0] != "live" {
		t.Errorf("got %q", got)
	}
	want := slices.DeleteFunc(slices.Clone(channels), func(name string) bool { return name == left })
	if diff := cmp.Diff(want, c.Channels()); diff != "" {
		t.Errorf("channels (-want +got):\n%s", diff)
	}
}

func TestAnAddressThatIsTooLongForAProxyIsSaid(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge} {
		s := serveWith(t, func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		})
		_, err := s.tryDial(client.WithToken(s.token("ana")))
		if !errors.Is(err, client.ErrTooLarge) || !strings.Contains(fmt.Sprint(err), "longer than a proxy") {
			t.Errorf("status %d: %v", status, err)
		}
	}
}
