package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// noneOf counts each reason, as Stats always does: 0, unless but has another number.
func noneOf(reasons []string, but map[string]uint64) map[string]uint64 {
	counts := make(map[string]uint64)
	for _, reason := range reasons {
		counts[reason] = but[reason]
	}
	return counts
}

var (
	handshakeReasons = []string{"busy", "draining", "forbidden", "full", "invalid", "too_many", "too_often", "unauthenticated", "unavailable"}
	commandReasons   = []string{"forbidden", "invalid", "not_joined", "rate_limited", "too_large", "unavailable"}
	noPortErrors     = map[string]chat.PortErrors{"authenticator": {}, "history": {}, "policy": {}, "registry": {}}
)

func TestStatsCountWhatHappened(t *testing.T) {
	s := chatserver.Serve(t, chat.WithPresence(chat.PresenceToNobody))
	ana, admin, again := s.Dial("ana"), s.Dial("admin"), s.Dial("ana")
	ana.Answer(`{"type":"broadcast","content":"x"}`)
	admin.Answer(`{"type":"broadcast","content":"x"}`)
	ana.Want("message")
	again.Want("message")
	s.Request("GET", "/ws/chat", "", "", chatserver.UpgradeHeaders...)
	wstest.Eventually(t, "all deliveries", func() bool { return s.Stats().Deliveries == 3 })
	want := chat.Stats{
		Sockets: 3, Users: 2, Accepted: 3, Refused: 1, Published: 1, Deliveries: 3, Commands: 2, RefusedCommands: 1,
		RefusedBy:         noneOf(handshakeReasons, map[string]uint64{"unauthenticated": 1}),
		RefusedCommandsBy: noneOf(commandReasons, map[string]uint64{"forbidden": 1}),
		PortErrors:        noPortErrors,
	}
	got := s.Stats()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(chat.Histogram{})); diff != "" {
		t.Errorf("Stats (-want +got):\n%s", diff)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
}

func TestStatsSayHowLongMessagesTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(chat.MemoryLimits{})
		f.broadcast = func(string) { <-time.After(20 * time.Millisecond) }
		s := chatserver.ServePipes(t, f.options()...)
		s.Dial("ana")
		s.Dial("bob")
		const messages = 3
		for range messages {
			s.Publish("", "x")
		}
		synctest.Wait()
		got := s.Stats()
		if got.Publish.Count != messages || got.Publish.Sum != 0.06 {
			t.Errorf("Publish: %d in %v s, want %d in 0.06", got.Publish.Count, got.Publish.Sum, messages)
		}
		shares := uint64(min(2, runtime.GOMAXPROCS(0))) // of two sockets, each in a share of its own
		if got.FanOut.Count != messages*shares || got.FanOut.Sum != 0 {
			t.Errorf("FanOut: %d in %v s, want %d at once", got.FanOut.Count, got.FanOut.Sum, messages*shares)
		}
		for i, bound := range got.Publish.Bounds {
			want := uint64(0)
			if bound >= 0.02 {
				want = messages
			}
			if got.Publish.Counts[i] != want {
				t.Errorf("Publish: %d took no longer than %v s, want %d", got.Publish.Counts[i], bound, want)
			}
			if got.FanOut.Counts[i] != got.FanOut.Count {
				t.Errorf("FanOut: %d took no longer than %v s", got.FanOut.Counts[i], bound)
			}
		}
	})
}

func TestStatsSayWhyHandshakesWereRefused(t *testing.T) {
	s := chatserver.Serve(t, chat.WithMaxSockets(1))
	ana := s.Dial("ana")
	token := s.Token("bob")
	with := func(more ...string) []string {
		return append(append([]string{}, chatserver.UpgradeHeaders...), append([]string{"Authorization", "Bearer " + token}, more...)...)
	}
	s.Request("GET", "/ws/chat", "", "", with()...)                                          // full
	s.Request("GET", "/ws/chat", "", "", with("Origin", "https://elsewhere.example.com")...) // forbidden
	s.Request("GET", "/ws/chat?channel=no+channel", "", "", with()...)                       // invalid
	s.Request("GET", "/ws/chat", token, "")                                                  // invalid: no handshake
	s.Request("GET", "/ws/chat", "", "", chatserver.UpgradeHeaders...)                       // unauthenticated
	_ = ana.Conn.CloseNow()                                                                  // nobody is left to wait for
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Request("GET", "/ws/chat", "", "", with()...) // draining
	want := noneOf(handshakeReasons, map[string]uint64{"draining": 1, "forbidden": 1, "full": 1, "invalid": 2, "unauthenticated": 1})
	got := s.Stats()
	if diff := cmp.Diff(want, got.RefusedBy); diff != "" {
		t.Errorf("RefusedBy (-want +got):\n%s", diff)
	}
	if got.Refused != 6 {
		t.Errorf("Refused = %d, want 6", got.Refused)
	}
}

func TestStatsSayWhyCommandsWereRefused(t *testing.T) {
	s := chatserver.Serve(t, chat.WithContentLimit(10), chat.WithCommandRate(0.001, 3))
	ana, admin := s.Dial("ana"), s.Dial("admin")
	ana.Answer(`{"type":"broadcast","content":"x"}`)
	ana.Answer(`{"type":"leave","channel":"ops"}`)
	ana.Answer(`nonsense`)
	ana.Answer(`{"type":"leave","channel":"ops"}`)
	admin.Answer(`{"type":"broadcast","content":"12345678901"}`)
	want := noneOf(commandReasons, map[string]uint64{"forbidden": 1, "not_joined": 1, "invalid": 1, "rate_limited": 1, "too_large": 1})
	got := s.Stats()
	if diff := cmp.Diff(want, got.RefusedCommandsBy); diff != "" {
		t.Errorf("RefusedCommandsBy (-want +got):\n%s", diff)
	}
	if got.RefusedCommands != 5 || got.Commands != 5 {
		t.Errorf("%d of %d commands refused, want all 5", got.RefusedCommands, got.Commands)
	}
}

// registryOf, historyOf and policyOf answer one question with an error.
type (
	registryOf struct {
		*chat.MemoryRegistry
		err error
	}
	historyOf struct {
		*chat.MemoryHistory
		err error
	}
	policyOf struct {
		chat.DefaultPolicy
		err error
	}
)

func (r registryOf) Connected(context.Context, string) ([]chat.Presence, error) { return nil, r.err }

func (h historyOf) After(context.Context, string, chat.Position, chat.Limit) ([]chat.Message, error) {
	return nil, h.err
}

func (p policyOf) Join(context.Context, chat.Identity, string) error { return p.err }

func TestStatsCountWhatPortsFailedAt(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		each chat.PortErrors
	}{
		"an error":             {errors.New("connection refused"), chat.PortErrors{Others: 1}},
		"no answer in time":    {fmt.Errorf("reading: %w", context.DeadlineExceeded), chat.PortErrors{Timeouts: 1}},
		"the client went away": {context.Canceled, chat.PortErrors{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := chatserver.Serve(t,
				chat.WithRegistry(registryOf{chat.NewMemoryRegistry(), test.err}),
				chat.WithHistory(historyOf{chat.NewMemoryHistory(chat.MemoryLimits{}), test.err}),
				chat.WithPolicy(policyOf{err: test.err}))
			for _, path := range []string{"/users/connected", "/messages", "/messages?channel=ops"} {
				if resp, _ := s.Request("GET", path, s.Token("admin"), ""); resp.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("%s: status %d", path, resp.StatusCode)
				}
			}
			want := map[string]chat.PortErrors{"authenticator": {}, "history": test.each, "policy": test.each, "registry": test.each}
			if diff := cmp.Diff(want, s.Stats().PortErrors); diff != "" {
				t.Errorf("PortErrors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestThatNothingIsKeptIsNoError(t *testing.T) {
	s := chatserver.Serve(t, chat.WithHistory(historyOf{chat.NewMemoryHistory(chat.MemoryLimits{}), chat.ErrGone}))
	s.Dial("ana", "since", chat.FormatID("", chat.Position{Epoch: "other", Seq: 1}))
	if diff := cmp.Diff(noPortErrors, s.Stats().PortErrors); diff != "" {
		t.Errorf("PortErrors (-want +got):\n%s", diff)
	}
}
