package chat

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/sequence"
)

// memoryRoom is a channel that has members on this node.
type memoryRoom struct {
	channel string
	line    *sequence.Sequencer[fanout.Frame]
	members int
	users   map[*memoryUser]stay // nil in everyone's channel and users' own
}

// stay is a user's presence in a channel.
type stay struct {
	since       time.Time
	connections int
	joinSize    int // users there right after the first of them
}

// open makes the channel's room. Under mu.
func (r *MemoryRegistry) open(channel string) *memoryRoom {
	room := &memoryRoom{channel: channel}
	room.line = sequence.New(channelHistory{r, channel}, r.gaps,
		func(f fanout.Frame) { r.hub.Publish(channel, f) },
		func() { r.resync(channel) })
	r.rooms[channel] = room
	if channel != "" && !strings.HasPrefix(channel, "@") {
		room.users = make(map[*memoryUser]stay)
	}
	if u := r.owner(channel); u != nil {
		if u.known {
			room.line.Begin(sequence.Position(u.own))
		}
		u.own, u.known = Position{}, false
		for _, m := range u.members {
			if m.own == joined { // whoever is joining comes by itself
				m.own = outside
				r.add(m, room)
				m.fan.Join(channel)
			}
		}
	}
	return room
}

// add makes m a member of the room and reports whether it was none. Who is
// connected is known without everyone's channel, and a user's own is nobody
// else's to know of. Under mu.
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
		in.since = time.Now().UTC()
	}
	in.connections++
	if !there {
		in.joinSize = len(room.users) + 1
	}
	room.users[m.user] = in
	if !there {
		r.watch(PresenceChange{room.channel, m.socket.User(), true, len(room.users), in.joinSize})
	}
	return true
}

// exit undoes add, but for m's own list of rooms, and closes the room when nobody
// is left in it. Under mu.
func (r *MemoryRegistry) exit(room *memoryRoom, m *member) {
	if in, there := room.users[m.user]; there {
		if in.connections--; in.connections > 0 {
			room.users[m.user] = in
		} else {
			delete(room.users, m.user)
			r.watch(PresenceChange{room.channel, m.socket.User(), false, len(room.users), in.joinSize})
		}
	}
	room.members--
	r.closeEmpty(room)
}

// leaveOwn takes m out of its user's own channel while that is no room. When all
// are out, what is sent there is not noticed any more. Under mu.
func (r *MemoryRegistry) leaveOwn(m *member, channel string) {
	if m.own == outside {
		return
	}
	m.own = outside
	if m.user.listens() {
		return
	}
	m.user.own, m.user.known = Position{}, false
	if room := r.rooms[channel]; room != nil {
		r.closeEmpty(room) // it was opened for m
	}
}

// closeEmpty closes the room if nobody is in it, nor on the way into their own:
// what came for them meanwhile is in its line. Under mu.
func (r *MemoryRegistry) closeEmpty(room *memoryRoom) {
	if u := r.owner(room.channel); room.members == 0 && (u == nil || !u.listens()) {
		room.line.Close()
		delete(r.rooms, room.channel)
	}
}

// resync ends the sockets in a channel whose missing messages are gone: when
// they resume they are told so.
func (r *MemoryRegistry) resync(channel string) {
	r.hub.Each(channel, func(to fanout.Receiver) {
		to.(interface{ Close(CloseCode, string) }).Close(CloseTooSlow, "messages were lost, resume")
	})
}

// channelHistory lets a channel's line read what it missed.
type channelHistory struct {
	registry *MemoryRegistry
	channel  string
}

// fillCount and fillBytes bound the missing messages that are read at once, see [Limit].
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
