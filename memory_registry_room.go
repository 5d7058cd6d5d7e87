package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/sequence"
)

// memoryRoom is a channel that has members on this node.
type memoryRoom struct {
	channel   string
	sequencer *sequence.Sequencer[fanout.Frame]
	members   int
	users     map[*memoryUser]stay // nil for everyone's channel and user channels
}

// stay is a user's presence in a channel. It is small: there is one for every user in
// every channel.
type stay struct {
	since       int64  // Unix, in µs
	connections uint32 // sockets there
	joinSize    uint32 // users there right after the first of them joined
}

// open opens the channel's room. Requires r.mu.
func (r *MemoryRegistry) open(channel string) *memoryRoom {
	room := &memoryRoom{channel: channel}
	deliver := func(f fanout.Frame) { r.hub.Publish(channel, f) }
	lost := func() { r.resync(channel) }
	room.sequencer = sequence.New(channelHistory{r, channel}, r.gaps, deliver, lost)
	r.rooms[channel] = room
	if channel != "" && !strings.HasPrefix(channel, "@") {
		room.users = make(map[*memoryUser]stay)
	}
	if u := r.owner(channel); u != nil {
		r.moveIn(u, room)
	}
	return room
}

// enroll adds the socket to the channel's room, which it opens if needed. room is nil if the
// channel is the socket's user channel and is parked. fresh reports whether the socket was
// not in the channel before.
func (r *MemoryRegistry) enroll(s Socket, channel string) (m *member, room *memoryRoom, fresh bool, err error) {
	id := s.ID()
	r.mu.Lock()
	defer r.mu.Unlock()
	m = r.members[id]
	if m == nil {
		return nil, nil, false, errNotAdded
	}
	ofUser := r.owner(channel) == m.user
	room = r.rooms[channel]
	if room == nil && ofUser {
		fresh = m.parked == outside
		m.parked = max(m.parked, joining)
		return m, nil, fresh, nil
	}
	if room == nil {
		room = r.open(channel)
	}
	if ofUser {
		m.parked = outside // from here on the socket is in the room
	}
	return m, room, r.add(m, room), nil
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
		m.fan.Join(room.channel)
	})
	switch {
	case strings.HasPrefix(room.channel, "@"): // nothing is announced there
	case m.socket.User().Admin():
		m.fan.Join(adminsOf(room.channel))
	case !fresh:
		m.fan.Leave(adminsOf(room.channel)) // the user may have been an admin before
	}
	if ok && !fresh {
		err = m.fan.Flush(ctx)
	}
	return start, ok, err
}

// add makes m a member of the room and reports whether it was not one before. The rooms of
// everyone's channel and of user channels do not count users: all users of the registry are
// in the first, and one user in each other. Requires r.mu.
func (r *MemoryRegistry) add(m *member, room *memoryRoom) bool {
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
		r.changed(PresenceChange{
			Channel: room.channel, User: m.socket.User(), Joined: true,
			Size: len(room.users), JoinSize: int(in.joinSize),
		})
	}
	return true
}

// exit undoes add, except for m.rooms, and closes a room without members. Requires r.mu.
func (r *MemoryRegistry) exit(room *memoryRoom, m *member) {
	if in, there := room.users[m.user]; there {
		if in.connections--; in.connections > 0 {
			room.users[m.user] = in
		} else {
			delete(room.users, m.user)
			r.changed(PresenceChange{
				Channel: room.channel, User: m.socket.User(),
				Size: len(room.users), JoinSize: int(in.joinSize),
			})
		}
	}
	room.members--
	r.closeEmpty(room)
}

// closeEmpty closes a room without members. It keeps the room if sockets of its user are
// still joining: the sequencer has messages for them. Requires r.mu.
func (r *MemoryRegistry) closeEmpty(room *memoryRoom) {
	if u := r.owner(room.channel); room.members == 0 && (u == nil || !u.parked()) {
		room.sequencer.Close()
		delete(r.rooms, room.channel)
	}
}

// resync closes the sockets in a channel whose missing messages are no longer kept. The
// clients resume, and learn then that messages are missing.
func (r *MemoryRegistry) resync(channel string) {
	r.hub.Each(channel, func(to fanout.Receiver) {
		to.(deliverer).Close(CloseTooSlow, "messages were lost, resume")
	})
}

// deliverer is a socket that the hub delivers to.
type deliverer interface {
	Socket
	fanout.Receiver
}

// delivererOf returns s itself if s is a socket of the service.
func delivererOf(s Socket) deliverer {
	if own, ok := s.(*socket); ok {
		return own
	}
	return foreignSocket{s}
}

// foreignSocket is a Socket of another package. It may wrap a socket of the service. The
// hub's goroutines call Receive and Close: without recovery a panic would end the process.
type foreignSocket struct{ Socket }

// Receive implements [fanout.Receiver].
func (f foreignSocket) Receive(b fanout.Batch) {
	defer func() {
		if f.recovered(recover()) {
			f.Close(CloseGoingAway, "internal error")
		}
	}()
	for i := range b.Frames {
		f.Deliver(b.Frames[i].Event.(*encodedEvent).Event)
	}
}

// Close implements [Socket].
func (f foreignSocket) Close(code CloseCode, reason string) {
	defer func() { f.recovered(recover()) }()
	f.Socket.Close(code, reason)
}

// recovered logs a panic, if there was one.
func (f foreignSocket) recovered(p any) bool {
	if p != nil {
		slog.Error("chat: a Socket panicked", "type", fmt.Sprintf("%T", f.Socket), "panic", p, "stack", string(debug.Stack()))
	}
	return p != nil
}

// channelHistory lets a channel's sequencer read missing messages.
type channelHistory struct {
	registry *MemoryRegistry
	channel  string
}

// fillCount and fillBytes bound the missing messages that one call reads, see [Limit].
const (
	fillCount = 256
	fillBytes = 256 << 10
)

func (h channelHistory) After(ctx context.Context, p sequence.Position) ([]sequence.Item[fanout.Frame], error) {
	msgs, err := h.registry.history.After(ctx, h.channel, Position(p), Limit{fillCount, fillBytes})
	if errors.Is(err, ErrGone) {
		return nil, errors.Join(err, sequence.ErrGone)
	}
	items := make([]sequence.Item[fanout.Frame], len(msgs))
	for i, m := range msgs {
		items[i] = sequence.Item[fanout.Frame]{Position: sequence.Position(m.Position), Value: messageFrame(m)}
	}
	return items, err
}

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
