package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/latency"
	"github.com/reto10/chat/internal/sequence"
)

// MemoryRegistry is the [Registry] of a single process. Registries for several nodes
// embed it to deliver on each node. It serves one [Service]. Its methods are safe for
// concurrent use.
//
// It logs a panic of a foreign [Socket] to [slog.Default] and closes the socket.
type MemoryRegistry struct {
	hub  *fanout.Hub
	gaps *sequence.Gaps

	// Set by Start, before any other method is called.
	started atomic.Bool
	history History
	changed func(PresenceChange)

	mu      sync.Mutex         // guards the fields below; not held during deliveries
	members map[string]*member // by the socket's id
	users   map[string]*memoryUser
	rooms   map[string]*memoryRoom
}

// member is a socket in the registry. The registry's mu guards rooms and parked.
type member struct {
	socket deliverer
	fan    fanout.Member
	user   *memoryUser
	rooms  []*memoryRoom // joined
	parked membership    // in the user channel, while that is parked
}

// memoryUser is a user with sockets on this node.
type memoryUser struct {
	members  []*member // oldest first
	since    time.Time // when the first of them connected
	joinSize int       // users connected right after that

	// parkedAt is the position of the parked user channel; valid if parkedKnown. See
	// memory_registry_parked.go.
	parkedAt    Position
	parkedKnown bool
}

// NewMemoryRegistry returns an empty registry.
func NewMemoryRegistry() *MemoryRegistry {
	return &MemoryRegistry{
		hub:     fanout.NewHub(0),
		gaps:    sequence.NewGaps(),
		history: NewMemoryHistory(MemoryLimits{}),
		changed: func(PresenceChange) {},
		members: make(map[string]*member),
		users:   make(map[string]*memoryUser),
		rooms:   make(map[string]*memoryRoom),
	}
}

// Start implements [Registry]. Without a history it uses a [MemoryHistory] with the default
// limits. changed may be nil here. A second call is an error.
func (r *MemoryRegistry) Start(history History, changed func(PresenceChange)) (History, error) {
	if r.started.Swap(true) {
		return nil, errors.New("this MemoryRegistry serves another Service already: give WithRegistry a new one")
	}
	if history != nil {
		r.history = history
	}
	if changed != nil {
		r.changed = changed
	}
	return r.history, nil
}

// Check implements [Registry]. Its error is always nil.
func (r *MemoryRegistry) Check(context.Context) error { return nil }

// Stats implements [Registry].
func (r *MemoryRegistry) Stats() RegistryStats {
	r.mu.Lock()
	users := len(r.users)
	r.mu.Unlock()
	return RegistryStats{Users: users, Deliveries: r.hub.Deliveries(), FanOut: histogram(r.hub.Latency())}
}

// Add implements [Registry]. All sockets that it counts are connected.
func (r *MemoryRegistry) Add(_ context.Context, s Socket, _ int) (int, error) {
	m := &member{socket: delivererOf(s)}
	r.hub.Add(&m.fan, m.socket)
	id, u := s.ID(), s.User()

	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.members[id]; known {
		return 0, fmt.Errorf("chat: a socket with the id %q was added before", id)
	}
	r.members[id] = m
	m.user = r.users[u.Name]
	if m.user == nil {
		m.user = &memoryUser{since: s.Since(), joinSize: len(r.users) + 1}
		r.users[u.Name] = m.user
		r.changed(PresenceChange{User: u, Joined: true, Size: len(r.users), JoinSize: m.user.joinSize})
	}
	m.user.members = append(m.user.members, m)
	return len(m.user.members), nil
}

// Remove implements [Registry].
func (r *MemoryRegistry) Remove(_ context.Context, s Socket) error {
	id := s.ID()
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[id]
	if m == nil {
		return nil
	}
	u := m.socket.User() // s may be a wrapper, or wrapped
	delete(r.members, id)
	m.fan.Remove()
	for _, room := range m.rooms {
		r.exit(room, m)
	}
	m.rooms = nil
	m.user.members = slices.DeleteFunc(m.user.members, func(o *member) bool { return o == m })
	r.unpark(m, UserChannel(u.Name))
	if len(m.user.members) == 0 {
		delete(r.users, u.Name)
		r.changed(PresenceChange{User: u, Size: len(r.users), JoinSize: m.user.joinSize})
	}
	return nil
}

// Join implements [Registry].
func (r *MemoryRegistry) Join(ctx context.Context, s Socket, channel string) (Position, error) {
	for {
		m, room, fresh, err := r.enroll(s, channel)
		if err != nil {
			return Position{}, err
		}
		var start Position
		var ok bool
		if room != nil {
			start, ok, err = r.joinRoom(ctx, m, room, fresh)
		} else {
			start, ok, err = r.joinParked(ctx, m, channel)
		}
		if err != nil {
			if fresh {
				_ = r.Leave(ctx, s, channel)
			}
			return Position{}, err
		}
		if ok {
			return start, nil
		}
		// Try again: the room was closed, or the parked channel got a room.
	}
}

// Leave implements [Registry].
func (r *MemoryRegistry) Leave(ctx context.Context, s Socket, channel string) error {
	m := r.leave(s.ID(), channel)
	if m == nil {
		return nil
	}
	return m.fan.Flush(ctx)
}

// leave takes a socket out of a channel. It returns nil when the socket was in no room of
// the channel.
func (r *MemoryRegistry) leave(id, channel string) *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, room := r.members[id], r.rooms[channel]
	at := -1
	if m != nil && room != nil {
		at = slices.Index(m.rooms, room)
	}
	if at < 0 {
		if m != nil && r.owner(channel) == m.user {
			r.unpark(m, channel)
		}
		return nil
	}
	m.rooms = slices.Delete(m.rooms, at, at+1)
	m.fan.Leave(channel)
	m.fan.Leave(adminsOf(channel))
	r.exit(room, m)
	return m
}

// Publish implements [Registry]. Its only error is ctx's.
func (r *MemoryRegistry) Publish(ctx context.Context, msgs ...Message) error {
	for i := range msgs {
		if err := r.publish(ctx, &msgs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *MemoryRegistry) publish(ctx context.Context, m *Message) error {
	offered := latency.Now()
	if err := r.hub.Wait(ctx); err != nil {
		return err
	}
	var f fanout.Frame
	for {
		room := r.room(m.Channel, nil)
		if room == nil {
			return nil
		}
		if f.Bytes == nil {
			f = messageFrame(*m)
			f.Offered = offered
		}
		if room.sequencer.Offer(sequence.Position(m.Position), f) {
			return nil
		}
	}
}

// ReadMissing delivers the messages that the sockets of this node miss in a channel, up to
// last, the position of its newest message in the history. If missing messages are no
// longer kept or last is of another epoch, it closes the sockets with [CloseTooSlow], so
// that they resume. A registry that may have missed messages calls ReadMissing. It returns
// at once.
func (r *MemoryRegistry) ReadMissing(channel string, last Position) {
	if room := r.room(channel, &last); room != nil {
		room.sequencer.Expect(sequence.Position(last))
	}
}

// room returns the channel's room, nil if the channel has no members here. It opens the room
// of a parked user channel, unless newest is the position at which the channel is parked:
// then nothing is missing. newest is nil if a message is being published.
func (r *MemoryRegistry) room(channel string, newest *Position) *memoryRoom {
	r.mu.Lock()
	defer r.mu.Unlock()
	room := r.rooms[channel]
	u := r.owner(channel)
	if room != nil || u == nil || !u.parked() {
		return room
	}
	if newest != nil && (!u.parkedKnown || u.parkedAt == *newest) {
		return nil
	}
	return r.open(channel)
}

// Connected implements [Registry].
func (r *MemoryRegistry) Connected(_ context.Context, channel string) ([]Presence, error) {
	list := r.connected(channel)
	slices.SortFunc(list, func(a, b Presence) int { return strings.Compare(a.User.Name, b.User.Name) })
	return list, nil
}

// connected returns what Connected does, unsorted.
func (r *MemoryRegistry) connected(channel string) (list []Presence) {
	owner, ofUser := strings.CutPrefix(channel, "@")
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case channel == "":
		list = make([]Presence, 0, len(r.users))
		for _, u := range r.users {
			list = append(list, u.presence())
		}
	case ofUser:
		if u := r.users[owner]; u != nil {
			list = append(list, u.presence())
		}
	case r.rooms[channel] != nil:
		room := r.rooms[channel]
		list = make([]Presence, 0, len(room.users))
		for u, in := range room.users {
			list = append(list, Presence{u.userIn(room), int(in.connections), time.UnixMicro(in.since).UTC()})
		}
	}
	return list
}

// Flush implements [Registry]. It also waits for messages behind a gap, unless the history
// cannot fill the gap.
func (r *MemoryRegistry) Flush(ctx context.Context) error {
	if err := r.gaps.Settle(ctx); err != nil {
		return err
	}
	return r.hub.Flush(ctx)
}

// CloseUser implements [Registry].
func (r *MemoryRegistry) CloseUser(_ context.Context, username string, keep int, code CloseCode, reason string) (int, error) {
	r.mu.Lock()
	var surplus []*member
	if u := r.users[username]; u != nil && len(u.members) > keep {
		surplus = slices.Clone(u.members[:len(u.members)-keep])
	}
	r.mu.Unlock()
	for _, m := range surplus {
		m.fan.Do(func() { m.socket.Close(code, reason) })
	}
	return len(surplus), nil
}

// Announce implements [Registry].
func (r *MemoryRegistry) Announce(channel string, adminsOnly bool, events []Event) {
	group := channel
	if adminsOnly {
		group = adminsOf(channel)
	}
	frames := make([]fanout.Frame, len(events))
	for i, e := range events {
		frames[i] = eventFrame(e)
	}
	r.hub.Publish(group, frames...)
}

// adminsOf returns the hub group of a channel's admins. Its name contains a NUL, so it
// differs from all channel names.
func adminsOf(channel string) string { return "\x00" + channel }

// user returns the user with the role of the newest socket: a refreshed token may have
// another role. Requires the registry's mu.
func (u *memoryUser) user() User { return u.members[len(u.members)-1].socket.User() }

// userIn returns the user with the role of the newest socket in a room. Requires the
// registry's mu.
func (u *memoryUser) userIn(room *memoryRoom) User {
	for _, m := range slices.Backward(u.members) {
		if slices.Contains(m.rooms, room) {
			return m.socket.User()
		}
	}
	return u.user() // never: a user in the room has a socket there
}

// presence returns the user's presence in the service. Requires the registry's mu.
func (u *memoryUser) presence() Presence { return Presence{u.user(), len(u.members), u.since} }
