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
	channel string
	line    *sequence.Sequencer[fanout.Frame]
	members int
	users   map[*memoryUser]stay // nil for the common channel and users' channels
}

// stay is a user's presence in a channel. It is small: there is one for every user in
// every channel.
type stay struct {
	since       int64 // Unix, in µs
	connections uint32
	joinSize    uint32 // users there right after the first of them joined
}

// open makes the channel's room. Requires r.mu.
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
		r.moveIn(u, room)
	}
	return room
}

// add makes m a member of the room and reports whether it was none before. The users in
// the common channel are those of the registry, and nobody else joins a user's channel:
// neither counts users. Requires r.mu.
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
		r.changed(PresenceChange{room.channel, m.socket.User(), true, len(room.users), int(in.joinSize)})
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
			r.changed(PresenceChange{room.channel, m.socket.User(), false, len(room.users), int(in.joinSize)})
		}
	}
	room.members--
	r.closeEmpty(room)
}

// closeEmpty closes a room without members, unless sockets of its user are on their way
// in: its line has what was sent to them meanwhile. Requires r.mu.
func (r *MemoryRegistry) closeEmpty(room *memoryRoom) {
	if u := r.owner(room.channel); room.members == 0 && (u == nil || !u.parked()) {
		room.line.Close()
		delete(r.rooms, room.channel)
	}
}

// resync closes the sockets in a channel whose missing messages are gone. They resume,
// and learn then that messages are missing.
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

// delivererOf is s itself where s is the service's own socket.
func delivererOf(s Socket) deliverer {
	if own, ok := s.(*socket); ok {
		return own
	}
	return foreignSocket{s}
}

// foreignSocket is a Socket of another package. It may wrap one of the service's. The
// hub's goroutines call Receive and Close, so that a panic there would end the process.
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

// channelHistory lets a channel's line read missing messages.
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
