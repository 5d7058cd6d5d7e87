package chat

import (
	"context"
	"slices"
	"strings"

	"github.com/reto10/chat/internal/sequence"
)

// Most user channels never get a message. A room costs 0.6 KiB, so a user channel starts
// parked: the registry keeps only its position and which sockets are in it. The first
// message opens its room.

// membership is the state of a socket in its parked user channel.
type membership uint8

const (
	outside membership = iota
	joining            // the position is not known yet
	joined
)

// joinParked joins m to its parked user channel and returns the channel's position. ok is
// false if the channel has got a room, or m has left: the caller tries again.
func (r *MemoryRegistry) joinParked(ctx context.Context, m *member, channel string) (start Position, ok bool, err error) {
	read := false
	for {
		r.mu.Lock()
		switch {
		case r.rooms[channel] != nil || m.parked == outside:
			r.mu.Unlock()
			return Position{}, false, nil
		case read && !m.user.parkedKnown:
			m.user.parkedAt, m.user.parkedKnown = start, true
		}
		if m.user.parkedKnown {
			m.parked = joined
			start = m.user.parkedAt
			r.mu.Unlock()
			return start, true, nil
		}
		r.mu.Unlock()
		// A message that is published from here on opens the room, so none is lost between
		// reading the position and using it.
		if start, err = r.history.Last(ctx, channel); err != nil {
			return Position{}, false, err
		}
		read = true
	}
}

// moveIn moves a parked user channel to its new room. Sockets in the state joining enter
// the room themselves, see Join. Requires r.mu.
func (r *MemoryRegistry) moveIn(u *memoryUser, room *memoryRoom) {
	if u.parkedKnown {
		room.sequencer.Begin(sequence.Position(u.parkedAt))
	}
	u.parkedAt, u.parkedKnown = Position{}, false
	for _, m := range u.members {
		if m.parked == joined {
			m.parked = outside
			r.add(m, room)
			m.fan.Join(room.channel)
		}
	}
}

// unpark removes m from its parked user channel. After the last socket the registry forgets
// the position, since it no longer follows the channel. Requires r.mu.
func (r *MemoryRegistry) unpark(m *member, channel string) {
	if m.parked == outside {
		return
	}
	m.parked = outside
	if m.user.parked() {
		return
	}
	m.user.parkedAt, m.user.parkedKnown = Position{}, false
	if room := r.rooms[channel]; room != nil {
		r.closeEmpty(room) // it was opened for m
	}
}

// parked reports whether a socket of the user is in the parked user channel. Requires
// the registry's mu.
func (u *memoryUser) parked() bool {
	return slices.ContainsFunc(u.members, func(m *member) bool { return m.parked != outside })
}

// owner returns the user of a user channel, nil if the user is not connected or the channel
// is not a user channel. Requires r.mu.
func (r *MemoryRegistry) owner(channel string) *memoryUser {
	name, ofUser := strings.CutPrefix(channel, "@")
	if !ofUser {
		return nil
	}
	return r.users[name]
}
