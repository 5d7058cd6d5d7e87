package chat

import (
	"context"
	"slices"
	"strings"

	"github.com/reto10/chat/internal/sequence"
)

// Most users never get anything in their own channel. A room for each would cost 0.6 KiB
// a user, so the channel is parked until something is sent there: the registry knows its
// position and which sockets are in it, and no more. The functions below, and membership,
// are what that takes.

// membership is how far a socket is in its user's parked channel.
type membership uint8

const (
	outside membership = iota
	joining            // the position is not known yet
	joined
)

// joinParked finds the position of m's user's channel. It reports false when the channel
// has a room by now, or m has left.
func (r *MemoryRegistry) joinParked(ctx context.Context, m *member, channel string) (start Position, open bool, err error) {
	read := false
	for {
		r.mu.Lock()
		switch {
		case r.rooms[channel] != nil || m.parked == outside:
			r.mu.Unlock()
			return Position{}, false, nil
		case read && !m.user.known:
			m.user.at, m.user.known = start, true
		}
		if m.user.known {
			m.parked = joined
			start = m.user.at
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

// moveIn moves a user's parked channel to its new room. Sockets that are joining enter
// the room by themselves. Requires r.mu.
func (r *MemoryRegistry) moveIn(u *memoryUser, room *memoryRoom) {
	if u.known {
		room.line.Begin(sequence.Position(u.at))
	}
	u.at, u.known = Position{}, false
	for _, m := range u.members {
		if m.parked == joined {
			m.parked = outside
			r.add(m, room)
			m.fan.Join(room.channel)
		}
	}
}

// unpark takes m out of its user's parked channel. Without sockets the channel's position
// goes out of date. Requires r.mu.
func (r *MemoryRegistry) unpark(m *member, channel string) {
	if m.parked == outside {
		return
	}
	m.parked = outside
	if m.user.parked() {
		return
	}
	m.user.at, m.user.known = Position{}, false
	if room := r.rooms[channel]; room != nil {
		r.closeEmpty(room) // it was opened for m
	}
}

// parked reports whether a socket of the user is in the user's parked channel. Requires
// the registry's mu.
func (u *memoryUser) parked() bool {
	return slices.ContainsFunc(u.members, func(m *member) bool { return m.parked != outside })
}

// owner is the user whose channel it is, nil when that user is not connected. Requires
// r.mu.
func (r *MemoryRegistry) owner(channel string) *memoryUser {
	name, ofUser := strings.CutPrefix(channel, "@")
	if !ofUser {
		return nil
	}
	return r.users[name]
}
