package chat

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/sequence"
)

// memoryRoom is a channel that has members on this node.
type memoryRoom struct {
	all       fanout.Group // the sockets in the channel
	sequencer sequence.Sequencer[fanout.Frame]
	admins    fanout.Group // the sockets of admins; empty in user channels
	registry  *MemoryRegistry
	channel   string
	stripe    *channelStripe

	// The stripe guards these fields.
	members int32
	joining int32                // sockets that will enter their user channel, see moveIn
	users   map[*memoryUser]stay // nil for everyone's channel and user channels
}

// stay is a user's presence in a channel. It is small: there is one for every user in
// every channel.
type stay struct {
	since       int64  // Unix, in µs
	connections uint32 // sockets there
	joinSize    uint32 // users there right after the first of them joined
}

// room returns the channel's room, nil if the channel has no members here.
func (s *registryStripes) room(channel string) *memoryRoom {
	c := s.channel(channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rooms[channel]
}

// room returns the channel's room, nil if the channel has no members here. It opens the room
// of a parked user channel, unless newest is the position at which the channel is parked:
// then nothing is missing. newest is nil if a message is being published.
func (r *MemoryRegistry) room(channel string, newest *Position) *memoryRoom {
	if room := r.stripes.room(channel); room != nil {
		return room
	}
	name, owners := r.stripes.owner(channel)
	if owners == nil {
		return nil
	}
	owners.mu.Lock()
	defer owners.mu.Unlock()
	u, c := owners.users[name], r.stripes.channel(channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch room := c.rooms[channel]; {
	case room != nil || u == nil || !u.parked():
		return room
	case newest != nil && (!u.parkedKnown || u.parkedAt == *newest):
		return nil
	}
	return r.open(c, channel, u)
}

// open opens the channel's room. u is the user of a user channel, nil if the channel is none
// or the user is not connected. Requires the stripes of u and of the channel.
func (r *MemoryRegistry) open(c *channelStripe, channel string, u *memoryUser) *memoryRoom {
	room := &memoryRoom{registry: r, channel: channel, stripe: c}
	room.sequencer.Init(room, r.gaps)
	c.rooms[channel] = room
	if channel != "" && !strings.HasPrefix(channel, "@") {
		room.users = make(map[*memoryUser]stay)
	}
	if u != nil {
		r.moveIn(u, room)
	}
	return room
}

// enroll adds the socket to the channel's room, which it opens if needed. room is nil if the
// channel is the socket's user channel and is parked. fresh reports whether the socket was
// not in the channel before.
func (r *MemoryRegistry) enroll(s Socket, channel string) (m *member, room *memoryRoom, fresh bool, err error) {
	m = r.stripes.member(s.ID())
	if m == nil {
		return nil, nil, false, errNotAdded
	}
	name, owners := r.stripes.owner(channel)
	lockUsers(m.user.stripe, owners)
	defer unlockUsers(m.user.stripe, owners)
	if m.removed {
		return nil, nil, false, errNotAdded
	}
	var owner *memoryUser
	if owners != nil {
		owner = owners.users[name]
	}
	c := r.stripes.channel(channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	room = c.rooms[channel]
	if room == nil && owner == m.user {
		fresh = m.parked == outside
		m.parked = max(m.parked, joining)
		return m, nil, fresh, nil
	}
	if room == nil {
		room = r.open(c, channel, owner)
	}
	if owner == m.user && m.parked == joining {
		m.parked = outside // from here on the socket is in the room
		room.joining--
	}
	return m, room, room.add(m), nil
}

// errNotAdded: a socket that is not in the registry cannot join a channel.
var errNotAdded = errors.New("chat: the socket was removed, or never added")

// joinRoom joins m to the room's group and returns the position after which m gets messages.
// ok is false if the room was closed meanwhile.
func (r *MemoryRegistry) joinRoom(ctx context.Context, m *member, room *memoryRoom, fresh bool) (start Position, ok bool, err error) {
	if !room.sequencer.Begun() {
		last, err := r.history.Last(ctx, room.channel)
		if err != nil {
			return Position{}, false, err
		}
		room.sequencer.Begin(sequence.Position(last))
	}
	ok = room.sequencer.At(func(last sequence.Position) {
		start = Position(last)
		m.fan.Join(&room.all)
	})
	switch {
	case !ok: // the room was closed
	case strings.HasPrefix(room.channel, "@"): // nothing is announced there
	case m.socket.User().Admin():
		m.fan.Join(&room.admins)
	case !fresh:
		m.fan.Leave(&room.admins) // the user may have been an admin before
	}
	if ok && !fresh {
		err = m.fan.Flush(ctx)
	}
	return start, ok, err
}

// add makes m a member of the room and reports whether it was not one before. The rooms of
// everyone's channel and of user channels do not count users: all users of the registry are
// in the first, and one user in each other. Requires the stripes of m's user and of the
// channel.
func (room *memoryRoom) add(m *member) bool {
	if slices.Contains(m.rooms, room) {
		return false
	}
	if m.rooms == nil {
		m.rooms = make([]*memoryRoom, 0, 3)
	}
	m.rooms = append(m.rooms, room)
	room.members++
	if room.users == nil {
		return true
	}
	in, there := room.users[m.user]
	if !there {
		in = stay{since: time.Now().UnixMicro(), joinSize: uint32(len(room.users) + 1)}
	}
	in.connections++
	room.users[m.user] = in
	if !there {
		room.registry.changed(PresenceChange{
			Channel: room.channel, User: m.socket.User(), Joined: true,
			Size: len(room.users), JoinSize: int(in.joinSize),
		})
	}
	return true
}

// exit undoes add, except for m.rooms, and closes a room without members. Requires the stripe
// of m's user.
func (room *memoryRoom) exit(m *member) {
	room.stripe.mu.Lock()
	defer room.stripe.mu.Unlock()
	if in, there := room.users[m.user]; there {
		if in.connections--; in.connections > 0 {
			room.users[m.user] = in
		} else {
			delete(room.users, m.user)
			room.registry.changed(PresenceChange{
				Channel: room.channel, User: m.socket.User(),
				Size: len(room.users), JoinSize: int(in.joinSize),
			})
		}
	}
	room.members--
	room.closeEmpty()
}

// closeEmpty closes a room without members. It keeps the room if sockets of its user are
// still joining: the sequencer has messages for them. Requires the channel's stripe.
func (room *memoryRoom) closeEmpty() {
	if room.members == 0 && room.joining == 0 {
		room.sequencer.Close()
		delete(room.stripe.rooms, room.channel)
	}
}

// stays returns the users in a channel that counts them.
func (s *registryStripes) stays(channel string) map[*memoryUser]stay {
	c := s.channel(channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := c.rooms[channel]; room != nil {
		return maps.Clone(room.users)
	}
	return nil
}

// Deliver sends a frame to the sockets in the channel. The sequencer calls it.
func (room *memoryRoom) Deliver(f fanout.Frame) { room.all.Publish(f) }

// Lost closes the sockets in a channel whose missing messages are no longer kept. The
// clients resume, and learn then that messages are missing. The sequencer calls it.
func (room *memoryRoom) Lost() {
	room.all.Each(func(to fanout.Receiver) {
		to.(deliverer).Close(CloseTooSlow, "messages were lost, resume")
	})
}

// fillCount and fillBytes bound the missing messages that one call reads, see [Limit].
const (
	fillCount = 256
	fillBytes = 256 << 10
)

// After reads missing messages for the sequencer.
func (room *memoryRoom) After(ctx context.Context, p sequence.Position) ([]sequence.Item[fanout.Frame], error) {
	msgs, err := room.registry.history.After(ctx, room.channel, Position(p), Limit{fillCount, fillBytes})
	if errors.Is(err, ErrGone) {
		return nil, errors.Join(err, sequence.ErrGone)
	}
	items := make([]sequence.Item[fanout.Frame], len(msgs))
	for i := range msgs {
		items[i] = sequence.Item[fanout.Frame]{Position: sequence.Position(msgs[i].Position), Value: messageFrame(&msgs[i])}
	}
	return items, err
}
