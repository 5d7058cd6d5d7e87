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
	hub     *fanout.Hub
	gaps    *sequence.Gaps
	stripes *registryStripes // users, channels and sockets, with the locks for them

	// Set by Start, before any other method is called.
	started atomic.Bool
	history History
	changed func(PresenceChange)

	sizeMu sync.Mutex // guards size; held while changed is called with it
	size   int        // users with sockets on this node
}

// member is a socket in the registry. The user's stripe guards the fields from rooms on.
type member struct {
	socket deliverer
	fan    fanout.Member
	user   *memoryUser

	rooms   []*memoryRoom // joined
	parked  membership    // in the user channel, while that is parked
	removed bool
}

// memoryUser is a user with sockets on this node. The stripe guards the fields below it.
type memoryUser struct {
	stripe *userStripe

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
		stripes: newRegistryStripes(),
		history: NewMemoryHistory(MemoryLimits{}),
		changed: func(PresenceChange) {},
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
	r.sizeMu.Lock()
	users := r.size
	r.sizeMu.Unlock()
	return RegistryStats{Users: users, Deliveries: r.hub.Deliveries(), FanOut: histogram(r.hub.Latency())}
}

// Add implements [Registry]. All sockets that it counts are connected.
func (r *MemoryRegistry) Add(_ context.Context, s Socket, _ int) (int, error) {
	m := &member{socket: delivererOf(s)}
	id, u := s.ID(), s.User()
	stripe := r.stripes.user(u.Name)

	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	m.user = stripe.users[u.Name]
	if m.user == nil {
		m.user = &memoryUser{stripe: stripe, since: s.Since()}
	}
	if !r.stripes.insert(id, m) {
		return 0, fmt.Errorf("chat: a socket with the id %q was added before", id)
	}
	r.hub.Add(&m.fan, m.socket, m.user.beside())
	m.user.members = append(m.user.members, m)
	if len(m.user.members) == 1 {
		stripe.users[u.Name] = m.user
		m.user.joinSize = r.resize(1, PresenceChange{User: u, Joined: true})
	}
	return len(m.user.members), nil
}

// socketsTogether is how many sockets of a user share a shard of the hub, so that a message
// to the user wakes one dispatcher. A user with many more still has all cores.
const socketsTogether = 16

// beside returns a member whose shard the user's next socket uses, nil for another shard.
// Requires the user's stripe.
func (u *memoryUser) beside() *fanout.Member {
	n := len(u.members)
	if n%socketsTogether == 0 {
		return nil
	}
	return &u.members[n-1].fan
}

// resize adds by to the number of users. It calls changed with c and the new number, which
// it returns.
func (r *MemoryRegistry) resize(by int, c PresenceChange) int {
	r.sizeMu.Lock()
	defer r.sizeMu.Unlock()
	r.size += by
	c.Size = r.size
	if c.Joined {
		c.JoinSize = r.size
	}
	r.changed(c)
	return r.size
}

// Remove implements [Registry].
func (r *MemoryRegistry) Remove(_ context.Context, s Socket) error {
	id := s.ID()
	m := r.stripes.member(id)
	if m == nil {
		return nil
	}
	stripe := m.user.stripe
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	if m.removed {
		return nil
	}
	m.removed = true
	r.stripes.drop(id)
	m.fan.Remove()
	for _, room := range m.rooms {
		room.exit(m)
	}
	m.rooms = nil
	r.unpark(m)
	m.user.members = slices.DeleteFunc(m.user.members, func(o *member) bool { return o == m })
	if len(m.user.members) == 0 {
		u := m.socket.User() // s may be a wrapper, or wrapped
		delete(stripe.users, u.Name)
		r.resize(-1, PresenceChange{User: u, JoinSize: m.user.joinSize})
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
	m := r.stripes.member(id)
	if m == nil {
		return nil
	}
	m.user.stripe.mu.Lock()
	defer m.user.stripe.mu.Unlock()
	at := slices.IndexFunc(m.rooms, func(room *memoryRoom) bool { return room.channel == channel })
	if at < 0 {
		if m.owns(channel) {
			r.unpark(m)
		}
		return nil
	}
	room := m.rooms[at]
	m.rooms = slices.Delete(m.rooms, at, at+1)
	m.fan.Leave(&room.all)
	m.fan.Leave(&room.admins)
	room.exit(m)
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
	var f fanout.Frame
	for {
		room := r.room(m.Channel, nil)
		if room == nil {
			return nil
		}
		if f.Bytes == nil {
			if err := room.all.Wait(ctx); err != nil {
				return err
			}
			f = messageFrame(m)
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

// Connected implements [Registry].
func (r *MemoryRegistry) Connected(_ context.Context, channel string) ([]Presence, error) {
	list := r.connected(channel)
	slices.SortFunc(list, func(a, b Presence) int { return strings.Compare(a.User.Name, b.User.Name) })
	return list, nil
}

// connected returns what Connected does, unsorted. A user who joins or leaves during the
// call may be missing.
func (r *MemoryRegistry) connected(channel string) (list []Presence) {
	if channel == "" {
		for i := range r.stripes.users {
			list = r.stripes.users[i].appendPresence(list)
		}
		return list
	}
	if name, stripe := r.stripes.owner(channel); stripe != nil {
		stripe.mu.Lock()
		defer stripe.mu.Unlock()
		if u := stripe.users[name]; u != nil {
			list = append(list, u.presence())
		}
		return list
	}
	for u, in := range r.stripes.stays(channel) {
		if user, there := u.userIn(channel); there {
			list = append(list, Presence{user, int(in.connections), time.UnixMicro(in.since).UTC()})
		}
	}
	return list
}

// appendPresence appends the users of the stripe to a list.
func (s *userStripe) appendPresence(list []Presence) []Presence {
	s.mu.Lock()
	defer s.mu.Unlock()
	list = slices.Grow(list, len(s.users))
	for _, u := range s.users {
		list = append(list, u.presence())
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
	surplus := r.surplus(username, keep)
	for _, m := range surplus {
		m.fan.Do(func() { m.socket.Close(code, reason) })
	}
	return len(surplus), nil
}

// surplus returns all but the newest keep sockets of a user.
func (r *MemoryRegistry) surplus(username string, keep int) []*member {
	stripe := r.stripes.user(username)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	u := stripe.users[username]
	if u == nil || len(u.members) <= keep {
		return nil
	}
	return slices.Clone(u.members[:len(u.members)-keep])
}

// Announce implements [Registry].
func (r *MemoryRegistry) Announce(channel string, adminsOnly bool, events []Event) {
	room := r.stripes.room(channel)
	if room == nil {
		return
	}
	group := &room.all
	if adminsOnly {
		group = &room.admins
	}
	if group.Empty() { // most channels have no admins: then nothing is encoded
		return
	}
	frames := make([]fanout.Frame, len(events))
	for i := range events {
		frames[i] = eventFrame(&events[i])
	}
	group.Publish(frames...)
}

// owns reports whether a channel is the user channel of m's user.
func (m *member) owns(channel string) bool {
	name, ofUser := strings.CutPrefix(channel, "@")
	return ofUser && name == m.socket.User().Name
}

// user returns the user with the role of the newest socket: a refreshed token may have
// another role. Requires the user's stripe.
func (u *memoryUser) user() User { return u.members[len(u.members)-1].socket.User() }

// userIn returns the user with the role of the newest socket in a channel. there is false if
// no socket is in the channel.
func (u *memoryUser) userIn(channel string) (user User, there bool) {
	u.stripe.mu.Lock()
	defer u.stripe.mu.Unlock()
	for _, m := range slices.Backward(u.members) {
		if slices.ContainsFunc(m.rooms, func(room *memoryRoom) bool { return room.channel == channel }) {
			return m.socket.User(), true
		}
	}
	return User{}, false
}

// presence returns the user's presence in the service. Requires the user's stripe.
func (u *memoryUser) presence() Presence { return Presence{u.user(), len(u.members), u.since} }
