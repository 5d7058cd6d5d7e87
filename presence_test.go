package chat_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
)

func TestPresenceEventsArePerUserAndBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t)
		watch := s.Dial("watch")
		chatserver.WantPresence(t, "on connecting", s.HearPresence(watch), `user_joined watch/user in ""`)

		first := s.Dial("ana", "channel", "news")
		second := s.Dial("ana")
		admin := s.Dial("admin")
		// Only ana is in news: nobody else receives that join.
		chatserver.WantPresence(t, "arrivals", s.HearPresence(watch), `user_joined ana/user in ""`, `user_joined admin/admin in ""`)

		first.HangUp()
		chatserver.WantPresence(t, "one of two sockets closed", s.HearPresence(watch))
		second.HangUp()
		chatserver.WantPresence(t, "the last one closed", s.HearPresence(watch), `user_left ana/user in ""`)

		admin.HangUp()
		s.Dial("admin")
		chatserver.WantPresence(t, "left and joined within the window", s.HearPresence(watch))
		c := s.Dial("bob")
		c.HangUp()
		chatserver.WantPresence(t, "joined and left within the window", s.HearPresence(watch))
	})
}

func TestPresenceOfAChannelIsAnnouncedToItsMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t)
		in := s.Dial("watch", "channel", "news")
		s.HearPresence(in)
		ana := s.Dial("ana")
		s.HearPresence(in)
		ana.Answer(`{"type":"join","channel":"news"}`)
		chatserver.WantPresence(t, "join", s.HearPresence(in), `user_joined ana/user in "news"`)
		ana.Answer(`{"type":"leave","channel":"news"}`)
		chatserver.WantPresence(t, "leave", s.HearPresence(in), `user_left ana/user in "news"`)
		ana.Answer(`{"type":"join","channel":"news"}`)
		s.HearPresence(in)
		ana.HangUp()
		chatserver.WantPresence(t, "connection lost", s.HearPresence(in), `user_left ana/user in "news"`, `user_left ana/user in ""`)
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
				s := chatserver.ServePipes(t, tt.opts...)
				user, admin := s.Dial("user"), s.Dial("admin")
				s.HearPresence(user)
				s.HearPresence(admin)
				drain := func(c *chatserver.Client) { c.Want("message") } // the other's end of presence
				drain(user)
				s.Dial("ana")
				chatserver.WantPresence(t, "to a user", s.HearPresence(user), tt.toUser...)
				for admin.Next().Type != "message" {
				}
				_ = admin
			})
		})
	}
}

func TestPresenceToAdminsFollowsARefreshedRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t, chat.WithPresence(chat.PresenceToAdmins))
		c := s.Dial("watch")
		as := func(role string) {
			if got := c.Answer(`{"type":"refresh","token":"` + chatserver.TokenFor(t, chat.User{Name: "watch", Role: role}, time.Hour) + `"}`); got.Type != "ack" {
				t.Fatalf("refresh: %+v", got)
			}
		}
		chatserver.WantPresence(t, "a user", s.HearPresence(c))
		as(chat.RoleAdmin)
		s.Dial("ana")
		chatserver.WantPresence(t, "an admin by now", s.HearPresence(c), `user_joined ana/user in ""`)
		as(chat.RoleUser)
		s.Dial("bob")
		chatserver.WantPresence(t, "no admin any more", s.HearPresence(c))
	})
}

// When many users connect at once, deliveries do not grow with the square of their
// number.
func TestManyArrivalsAreNotQuadratic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const users, limit = 60, 20
		s := chatserver.ServePipes(t, chat.WithPresenceLimit(limit))
		for i := range users {
			c := s.Dial(fmt.Sprint("user", i))
			go func() {
				for {
					if _, err := c.Read(); err != nil {
						return
					}
				}
			}()
		}
		<-time.After(chatserver.PresenceWindow)
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
		want     []string                // what a non-admin receives
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
				s := chatserver.ServePipes(t, chat.WithRegistry(r), chat.WithPresenceLimit(limit), chat.WithPresence(tt.audience))
				user := s.Dial("watch")
				for _, window := range tt.changes {
					for _, c := range window {
						r.changed(c)
					}
					<-time.After(time.Second)
				}
				chatserver.WantPresence(t, "in all", s.HearPresence(user), tt.want...)
			})
		})
	}
}
