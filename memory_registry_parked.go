package chat

import (
	"context"
	"slices"

	"github.com/reto10/chat/internal/sequence"
)

// Most user channels never get a message. A room costs 0.4 KiB, so a user channel starts
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
	var read *Position // nil: not read yet
	for {
		start, known, ok := r.park(m, channel, read)
		if known || !ok {
			return start, ok, nil
		}
		// A message that is published from here on opens the room, so none is lost between
		// reading the position and using it.
		last, err := r.history.Last(ctx, channel)
		if err != nil {
			return Position{}, false, err
		}
		read = &last
	}
}

// park makes m joined if the position of its parked user channel is known. read is the
// position that the history has returned, nil before that. ok is false if the channel has got
// a room, or m has left.
func (r *MemoryRegistry) park(m *member, channel string, read *Position) (start Position, known, ok bool) {
	u := m.user
	u.stripe.mu.Lock()
	defer u.stripe.mu.Unlock()
	if m.parked == outside || r.stripes.room(channel) != nil {
		return Position{}, false, false
	}
	if read != nil && !u.parkedKnown {
		u.parkedAt, u.parkedKnown = *read, true
	}
	if u.parkedKnown {
		m.parked = joined
	}
	return u.parkedAt, u.parkedKnown, true
}

// moveIn moves a parked user channel to its new room. Sockets in the state joining enter the
// room themselves, see Join. Requires the stripes of the user and of the channel.
func (r *MemoryRegistry) moveIn(u *memoryUser, room *memoryRoom) {
	if u.parkedKnown {
		room.sequencer.Begin(sequence.Position(u.parkedAt))
	}
	u.parkedAt, u.parkedKnown = Position{}, false
	for _, m := range u.members {
		switch m.parked {
		case joining:
			room.joining++
		case joined:
			m.parked = outside
			room.add(m)
			m.fan.Join(&room.all)
		}
	}
}

// unpark removes m from its parked user channel. After the last socket the registry forgets
// the position, since it no longer follows the channel. Requires the user's stripe.
func (r *MemoryRegistry) unpark(m *member) {
	was, u := m.parked, m.user
	if was == outside {
		return
	}
	m.parked = outside
	if !u.parked() {
		u.parkedAt, u.parkedKnown = Position{}, false
	}
	if was == joining { // a room may have been opened for m
		r.stopJoining(UserChannel(m.socket.User().Name))
	}
}

// stopJoining takes a socket that will not enter the user channel's room off its count.
// Requires the user's stripe.
func (r *MemoryRegistry) stopJoining(channel string) {
	c := r.stripes.channel(channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := c.rooms[channel]; room != nil {
		room.joining--
		room.closeEmpty()
	}
}

// parked reports whether a socket of the user is in the parked user channel. Requires the
// user's stripe.
func (u *memoryUser) parked() bool {
	return slices.ContainsFunc(u.members, func(m *member) bool { return m.parked != outside })
}
