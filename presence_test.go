package chat_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// window is longer than any window of presence events, twice the default.
const window = time.Second

// hear collects the presence events of a client, until it gets the message that
// ends them.
func (s *server) hear(c *client) (events []string) {
	s.t.Helper()
	<-time.After(window)
	s.publish("", "end of presence")
	for {
		switch e := c.next(); e.Type {
		case "message":
			return events
		default:
			events = append(events, fmt.Sprintf("%s %s/%s in %q", e.Type, e.Username, e.Role, e.Channel))
		}
	}
}

func TestPresenceEventsArePerUserAndGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t)
		watch := s.dial("watch")
		wantEvents(t, "on connecting", s.hear(watch), `user_joined watch/user in ""`)

		first := s.dial("ana", "channel", "news")
		second := s.dial("ana")
		admin := s.dial("admin")
		// News has but ana in it: nobody else is told.
		wantEvents(t, "arrivals", s.hear(watch), `user_joined ana/user in ""`, `user_joined admin/admin in ""`)

		first.hangUp()
		wantEvents(t, "one of two sockets went", s.hear(watch))
		second.hangUp()
		wantEvents(t, "the last one went", s.hear(watch), `user_left ana/user in ""`)

		admin.hangUp()
		s.dial("admin")
		wantEvents(t, "went and came within the window", s.hear(watch))
		c := s.dial("bob")
		c.hangUp()
		wantEvents(t, "came and went within the window", s.hear(watch))
	})
}

func TestPresenceOfAChannelIsToldToItsMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t)
		in := s.dial("watch", "channel", "news")
		s.hear(in)
		ana := s.dial("ana")
		s.hear(in)
		ana.answer(`{"type":"join","channel":"news"}`)
		wantEvents(t, "join", s.hear(in), `user_joined ana/user in "news"`)
		ana.answer(`{"type":"leave","channel":"news"}`)
		wantEvents(t, "leave", s.hear(in), `user_left ana/user in "news"`)
		ana.answer(`{"type":"join","channel":"news"}`)
		s.hear(in)
		ana.hangUp()
		wantEvents(t, "connection lost", s.hear(in), `user_left ana/user in "news"`, `user_left ana/user in ""`)
	})
}

func TestPresenceAudience(t *testing.T) {
	tests := map[string]struct {
		opts            []chat.Option
		toUser, toAdmin []string
	}{
		"all":                 {nil, []string{`user_joined ana/user in ""`}, []string{`user_joined ana/user in ""`}},
		"admins":              {[]chat.Option{chat.WithPresence(chat.PresenceToAdmins)}, nil, []string{`user_joined ana/user in ""`}},
		"nobody":              {[]chat.Option{chat.WithPresence(chat.PresenceToNobody)}, nil, nil},
		"admins over a limit": {[]chat.Option{chat.WithPresenceLimit(2)}, nil, []string{`user_joined ana/user in ""`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := servePipes(t, tt.opts...)
				user, admin := s.dial("user"), s.dial("admin")
				s.hear(user)
				s.hear(admin)
				drain := func(c *client) { c.want("message") } // the other's end of presence
				drain(user)
				s.dial("ana")
				wantEvents(t, "to a user", s.hear(user), tt.toUser...)
				for admin.next().Type != "message" {
				}
				_ = admin
			})
		})
	}
}

func TestPresenceToAdminsFollowsARefreshedRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t, chat.WithPresence(chat.PresenceToAdmins))
		c := s.dial("watch")
		as := func(role string) {
			if got := c.answer(`{"type":"refresh","token":"` + tokenFor(t, chat.User{Name: "watch", Role: role}, time.Hour) + `"}`); got.Type != "ack" {
				t.Fatalf("refresh: %+v", got)
			}
		}
		wantEvents(t, "a user", s.hear(c))
		as(chat.RoleAdmin)
		s.dial("ana")
		wantEvents(t, "an admin by now", s.hear(c), `user_joined ana/user in ""`)
		as(chat.RoleUser)
		s.dial("bob")
		wantEvents(t, "no admin any more", s.hear(c))
	})
}

func wantEvents(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: presence events (-want +got):\n%s", when, diff)
	}
}

// Many that arrive at once are told of in numbers that do not grow with their
// square.
func TestManyArrivalsAreNotQuadratic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const users, limit = 60, 20
		s := servePipes(t, chat.WithPresenceLimit(limit))
		for i := range users {
			c := s.dial(fmt.Sprint("user", i))
			go func() {
				for {
					if _, err := c.read(); err != nil {
						return
					}
				}
			}()
		}
		<-time.After(window)
		synctest.Wait()
		if got := s.Stats().Deliveries; got > users*limit {
			t.Errorf("%d deliveries for %d arrivals, want at most %d", got, users, users*limit)
		}
	})
}

// scripted is a registry of several nodes as a service sees it: the test calls changed.
type scripted struct {
	*chat.MemoryRegistry
	changed func(chat.PresenceChange) // set by Start
}

func (r *scripted) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	r.changed = changed
	return r.MemoryRegistry.Start(h, nil)
}

// Another node may have announced the join, before this one was started.
func TestLeavesAreAnnouncedToEveryoneTheJoinMayHaveBeenAnnouncedTo(t *testing.T) {
	const limit = 10
	change := func(joined bool, size, joinSize int) chat.PresenceChange {
		return chat.PresenceChange{User: chat.User{Name: "ana", Role: chat.RoleUser}, Joined: joined, Size: size, JoinSize: joinSize}
	}
	joined, left := `user_joined ana/user in ""`, `user_left ana/user in ""`
	tests := map[string]struct {
		audience chat.PresenceAudience
		changes  [][]chat.PresenceChange // of one window each
		want     []string                // what a user who is no admin is told
	}{
		"left, joined within the limit":     {changes: [][]chat.PresenceChange{{change(false, 50, limit)}}, want: []string{left}},
		"left, joined above the limit":      {changes: [][]chat.PresenceChange{{change(false, 2, limit+1)}}},
		"left, joined nobody knows when":    {changes: [][]chat.PresenceChange{{change(false, 50, 0)}}, want: []string{left}},
		"joined within the limit":           {changes: [][]chat.PresenceChange{{change(true, limit, limit)}}, want: []string{joined}},
		"joined above the limit":            {changes: [][]chat.PresenceChange{{change(true, limit+1, limit+1)}}},
		"joined again in a large room":      {changes: [][]chat.PresenceChange{{change(true, limit+1, 3)}}},
		"joined as the room was emptied":    {changes: [][]chat.PresenceChange{{change(true, limit, limit+1)}}},
		"left and joined again, then left":  {changes: [][]chat.PresenceChange{{change(false, 50, 5), change(true, 51, 51)}, {change(false, 50, 5)}}, want: []string{left}},
		"left, joined and left in a window": {changes: [][]chat.PresenceChange{{change(false, 50, 5), change(true, 51, 51), change(false, 50, 51)}}, want: []string{left}},
		"announced here, though it has grown": {
			changes: [][]chat.PresenceChange{{change(true, 5, 5)}, {change(false, 50, 5), change(true, 51, 51)}, {change(false, 50, 51)}},
			want:    []string{joined, left},
		},
		"admins alone are told": {audience: chat.PresenceToAdmins, changes: [][]chat.PresenceChange{{change(true, 2, 2)}, {change(false, 1, 2)}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &scripted{MemoryRegistry: chat.NewMemoryRegistry()}
				s := servePipes(t, chat.WithRegistry(r), chat.WithPresenceLimit(limit), chat.WithPresence(tt.audience))
				user := s.dial("watch")
				for _, window := range tt.changes {
					for _, c := range window {
						r.changed(c)
					}
					<-time.After(time.Second)
				}
				wantEvents(t, "in all", s.hear(user), tt.want...)
			})
		})
	}
}
