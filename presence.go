package chat

import (
	"time"

	"github.com/reto10/chat/internal/presence"
)

// announcer announces the joins and leaves of users to the sockets of this node. The
// registry calls changed; a window batches the changes, and announce passes those that did
// not cancel out to [Registry].Announce.
type announcer struct {
	registry Registry
	audience PresenceAudience
	limit    int // announce to admins only if a channel has more users
	window   *presence.Window

	// announced has the channels and users whose join this node announced to everyone.
	// announce owns it.
	announced map[[2]string]bool
}

func newAnnouncer(cfg *config) *announcer {
	a := &announcer{
		registry:  cfg.registry,
		audience:  cfg.presence,
		limit:     cfg.presenceLimit,
		announced: make(map[[2]string]bool),
	}
	a.window = presence.New(cfg.presenceWindow, a.announce)
	return a
}

// changed takes a change from the registry. It returns at once.
func (a *announcer) changed(c PresenceChange) {
	if a.audience == PresenceToNobody {
		return
	}
	a.window.Add(presence.Change{
		Channel: c.Channel, Name: c.User.Name, Role: c.User.Role,
		Joined: c.Joined, Size: c.Size, JoinSize: c.JoinSize,
	})
}

// close ends the announcements. Changes that wait in the window are not announced.
func (a *announcer) close() { a.window.Close() }

// announce passes the changes of a window to the registry, one call for each audience. The
// window calls it, one goroutine at a time.
func (a *announcer) announce(changes []presence.Change) {
	type audience struct {
		channel    string
		adminsOnly bool
	}
	now := time.Now().UTC()
	events := make(map[audience][]Event)
	var order []audience // in the order of their first changes
	for len(changes) > 0 {
		// The window passes the changes of a channel in a row. Most are for one audience.
		n := 1
		for n < len(changes) && changes[n].Channel == changes[0].Channel {
			n++
		}
		for i, c := range changes[:n] {
			to := audience{c.Channel, !a.toEveryone(c)}
			list, known := events[to]
			if !known {
				order = append(order, to)
				list = make([]Event, 0, n-i)
			}
			typ := EventUserLeft
			if c.Joined {
				typ = EventUserJoined
			}
			events[to] = append(list, Event{Type: typ, User: User{c.Name, c.Role}, Channel: c.Channel, Time: now})
		}
		changes = changes[n:]
	}
	for _, to := range order {
		a.registry.Announce(to.channel, to.adminsOnly, events[to])
	}
}

// toEveryone reports whether a change is announced to everyone in its channel, and not
// to the admins alone.
//
// A join that any node announced to everyone has a JoinSize within the limit. The leave
// repeats this JoinSize, so every node announces the leave to everyone, also a node that
// started in between. At most as many leaves as the limit are announced to everyone
// although their join was not.
func (a *announcer) toEveryone(c presence.Change) bool {
	if a.audience != PresenceToAll {
		return false
	}
	key := [2]string{c.Channel, c.Name}
	small := c.JoinSize <= a.limit
	if c.Joined {
		everyone := small && c.Size <= a.limit
		if everyone {
			a.announced[key] = true
		}
		return everyone
	}
	announced := a.announced[key]
	delete(a.announced, key)
	return small || announced
}
