package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// readStream lists what a socket receives until a text: the texts of messages, and for
// acks the sequence number of their since.
func readStream(c *chatserver.Client, until string) (list []string) {
	c.T.Helper()
	for {
		switch e := c.Next(); e.Type {
		case "message":
			list = append(list, e.Content)
			if e.Content == until {
				return list
			}
		case "ack":
			said := "ack"
			for _, id := range e.SinceIDs() {
				if number, _, ok := strings.Cut(id, "-"); ok {
					said += " since " + number
				}
			}
			if e.Recovered != nil {
				said += fmt.Sprint(" recovered ", *e.Recovered)
			}
			list = append(list, said)
		case "error":
			list = append(list, "error "+e.Code)
		default:
			c.T.Fatalf("unexpected %+v", e)
		}
	}
}

func TestJoiningAgainAcknowledgesWhereItSays(t *testing.T) {
	tests := map[string]struct {
		channel string
		since   uint64 // 0: none
		ack     string
	}{
		"without an id":       {"news", 0, "ack since 3"},
		"from the first id":   {"news", 1, "ack since 3 recovered true"},
		"from the last id":    {"news", 2, "ack since 3 recovered true"},
		"from what comes now": {"news", 3, "ack since 3 recovered true"},
		"the user channel":    {"@ana", 0, "ack since 3"},
		"from an id of it":    {"@ana", 1, "ack since 3 recovered true"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(chat.MemoryLimits{})
			s := chatserver.Serve(t, f.options()...)
			first := s.Publish(tt.channel, "1")[0]
			c := s.Dial("ana", "channel", "news")
			s.Publish(tt.channel, "2")
			c.WantText("2")
			f.join = func(string) {
				f.join = nil
				s.Publish(tt.channel, "3")
				s.Publish("", "of another channel")
				_ = f.Flush(t.Context())
			}
			f.joined = func(string) {
				f.joined = nil
				s.Publish(tt.channel, "4", "5")
				_ = f.Flush(t.Context())
			}
			command := `{"type":"join","channel":"` + tt.channel + `"`
			if tt.since > 0 {
				command += `,"since":"` + chat.FormatID(tt.channel, chatserver.PositionOf(t, first, tt.since)) + `"`
			}
			c.Send(command + `}`)
			got := readStream(c, "5")
			if diff := cmp.Diff([]string{"of another channel", "3", tt.ack, "4", "5"}, got); diff != "" {
				t.Errorf("stream (-want +got):\n%s", diff)
			}
			s.Publish(tt.channel, "6")
			c.WantText("6")
		})
	}
}

// A client may have read messages with GET /messages that are not yet published.
func TestJoiningAgainFromAnIdAheadLeavesOutWhatIsBeforeIt(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	c := s.Dial("ana", "channel", "news")
	first := s.Publish("news", "1")[0]
	c.WantText("1")
	stored, handOn, handedOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.broadcast = func(content string) {
		if content == "2" {
			close(stored)
			<-handOn
		}
	}
	go func() {
		defer close(handedOn)
		s.Publish("news", "2")
	}()
	<-stored
	second := chat.FormatID("news", chatserver.PositionOf(t, first, 2))
	join := func(since string) string {
		c.Send(`{"type":"join","channel":"news"` + since + `}`)
		e := c.Want("ack")
		return fmt.Sprint(e.SinceIDs()[0], " ", e.Recovered != nil && *e.Recovered)
	}
	if got := join(`,"since":"` + second + `"`); got != second+" true" {
		t.Errorf("from an id ahead: %s", got)
	}
	if got := join(""); got != second+" false" {
		t.Errorf("again without an id: %s, want what was said before", got)
	}
	if got := join(`,"since":"` + first + `"`); got != second+" false" {
		t.Errorf("from the id before it: %s, want not recovered: the socket has not sent what follows", got)
	}
	if got := join(`,"since":"` + chat.FormatID("news", chatserver.PositionOf(t, first, 99)) + `"`); got != second+" false" {
		t.Errorf("from an id that never was: %s", got)
	}
	close(handOn)
	<-handedOn
	s.Publish("news", "3")
	c.WantText("3")
}

// An id that never was hides nothing that comes live while the channel is joined.
func TestJoiningFromAnIdThatNeverWasLosesNothing(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	first := s.Publish("news", "1")[0]
	c := s.Dial("ana")
	f.joined = func(string) {
		f.joined = nil
		s.Publish("news", "2")
		_ = f.Flush(t.Context())
	}
	c.Send(`{"type":"join","channel":"news","since":"` + chat.FormatID("news", chatserver.PositionOf(t, first, 99)) + `"}`)
	if diff := cmp.Diff([]string{"ack since 1 recovered false", "2"}, readStream(c, "2")); diff != "" {
		t.Errorf("stream (-want +got):\n%s", diff)
	}
}

// The history may drop what follows while it is replayed: what was replayed does not
// come again.
func TestReplayThatEndsAheadOfWhatIsLiveBringsNothingTwice(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	s.Dial("bob", "channel", "news") // keeps the channel open
	first := s.Publish("news", "1", "2")[0]
	stored, handOn, handedOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.broadcast = func(content string) {
		if content == "3" {
			close(stored)
			<-handOn
		}
	}
	go func() {
		defer close(handedOn)
		s.Publish("news", "3")
	}()
	<-stored
	c := s.Dial("ana")
	calls := 0
	f.after = func(context.Context) error {
		if calls++; calls == 2 {
			f.after = nil
			return fmt.Errorf("trimmed: %w", chat.ErrGone)
		}
		return nil
	}
	c.Send(`{"type":"join","channel":"news","since":"` + first + `"}`)
	for _, text := range []string{"2", "3"} {
		c.WantText(text)
	}
	if e := c.Want("ack"); !*e.Recovered || chatserver.PositionOf(t, e.SinceIDs()[0], 0) != chatserver.PositionOf(t, first, 0) || !strings.HasPrefix(e.SinceIDs()[0], "3-") {
		t.Errorf("ack %+v, want recovered since the third", e)
	}
	close(handOn)
	<-handedOn
	s.Publish("news", "4")
	c.WantText("4")
}

func TestJoiningAgainThatFailsChangesNothing(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	r := &refusing{faulty: f}
	s := chatserver.Serve(t, chat.WithRegistry(r), chat.WithHistory(f), chat.WithPresence(chat.PresenceToNobody))
	c := s.Dial("ana", "channel", "news")
	for i, channel := range []string{"news", "@ana"} {
		r.fails = func() {
			s.Publish(channel, fmt.Sprint("meanwhile ", i))
			_ = f.Flush(t.Context())
		}
		c.Send(`{"type":"join","channel":"` + channel + `"}`)
		if diff := cmp.Diff([]string{fmt.Sprint("meanwhile ", i)}, readStream(c, fmt.Sprint("meanwhile ", i))); diff != "" {
			t.Errorf("stream (-want +got):\n%s", diff)
		}
		c.Want("error")
		r.fails = nil
		s.Publish(channel, "after")
		c.WantText("after")
	}
}

// refusing is a registry in which joining again fails.
type refusing struct {
	*faulty
	fails func()
}

func (r *refusing) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	if r.fails != nil {
		r.fails()
		return chat.Position{}, errors.New("down")
	}
	return r.faulty.Join(ctx, s, channel)
}

// What is kept while a channel is joined again counts as a backlog.
func TestJoiningAgainKeepsNoMoreThanTheBacklog(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, append(f.options(), chat.WithContentLimit(1<<10), chat.WithBacklog(16<<10))...)
	c := s.Dial("ana", "channel", "news")
	kept := 0
	joining := make(chan struct{})
	f.join = func(string) {
		defer close(joining)
		f.join = nil
		for range 100 {
			s.Publish("news", strings.Repeat("x", 1<<10))
			_ = f.Flush(t.Context())
			kept = max(kept, int(s.Stats().BacklogBytes))
		}
	}
	c.Send(`{"type":"join","channel":"news"}`)
	c.WantClose(4003)
	<-joining
	if kept < 8<<10 || kept > 16<<10 {
		t.Errorf("kept %d bytes", kept)
	}
	wstest.Eventually(t, "nothing to be kept any more", func() bool { return s.Stats().BacklogBytes == 0 })
	if got := s.Stats().SlowClosed; got != 1 {
		t.Errorf("%d sockets were closed as slow", got)
	}
}

func TestPanicWhileJoiningAgainEndsTheSocketAlone(t *testing.T) {
	f := newFaulty(chat.MemoryLimits{})
	s := chatserver.Serve(t, f.options()...)
	bob := s.Dial("bob", "channel", "news")
	c := s.Dial("ana", "channel", "news")
	f.join = func(string) {
		f.join = nil
		s.Publish("news", "meanwhile")
		_ = f.Flush(t.Context())
		panic("a bug of the embedder's")
	}
	c.Send(`{"type":"join","channel":"news"}`)
	c.WantText("meanwhile")
	c.WantClose(1001)
	bob.WantText("meanwhile")
	wstest.Eventually(t, "nothing to be kept any more", func() bool { return s.Stats().BacklogBytes == 0 })
}
