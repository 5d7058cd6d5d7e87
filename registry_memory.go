package chat

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/latency"
	"github.com/reto10/chat/internal/sequence"
)

// MemoryRegistry is the [Registry] of a single process, and what delivers on
// each node for those that span several. It is a [PresenceSource], a [Notifier],
// a [HistoryReader] and a [Flusher]. Its methods are safe for concurrent use.
type MemoryRegistry struct {
	hub     *fanout.Hub
	gaps    *sequence.Gaps
	history History // set before use
	watch   func(PresenceChange)

	mu      sync.Mutex // guards what follows; not held while anything is delivered
	members map[Socket]*member
	users   map[string]*memoryUser
	rooms   map[string]*memoryRoom
}

// member is a socket in the registry.
type member struct {
	socket Socket
	fan    fanout.Member
	user   *memoryUser
	rooms  []*memoryRoom // joined
	own    membership    // of its user's own channel while that is no room
}

// membership is how far a socket has got into a channel.
type membership uint8

const (
	outside membership = iota
	joining
	joined
)

// memoryUser is somebody with sockets on this node.
type memoryUser struct {
	members []*member // oldest first
	since   time.Time // when the first of them came

	joinSize int // users connected right after that

	// own is where the user's own channel goes on, once it is known. It becomes a
	// room when something is sent there: most users never get anything.
	own   Position
	known bool
}

// NewMemoryRegistry makes an empty registry. It may be given to one Service.
func NewMemoryRegistry() *MemoryRegistry {
	return &MemoryRegistry{
		hub:     fanout.NewHub(0),
		gaps:    sequence.NewGaps(),
		history: NewMemoryHistory(MemoryLimits{}),
		watch:   func(PresenceChange) {},
		members: make(map[Socket]*member),
		users:   make(map[string]*memoryUser),
		rooms:   make(map[string]*memoryRoom),
	}
}

// WatchPresence implements [PresenceSource].
func (r *MemoryRegistry) WatchPresence(fn func(PresenceChange)) { r.watch = fn }

// ReadHistory implements [HistoryReader]. Its error is always nil.
func (r *MemoryRegistry) ReadHistory(h History) error {
	r.history = h
	return nil
}

// Deliveries counts what was handed to sockets so far: messages times receivers.
func (r *MemoryRegistry) Deliveries() uint64 { return r.hub.Deliveries() }

// Users counts who has sockets here now.
func (r *MemoryRegistry) Users() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.users)
}

// FanOut is how long messages took from Broadcast to the last socket of each
// share of them.
func (r *MemoryRegistry) FanOut() Histogram { return histogram(r.hub.Latency()) }

// Add implements [Registry].
func (r *MemoryRegistry) Add(_ context.Context, s Socket) (int, error) {
	receiver, ok := s.(fanout.Receiver)
	if !ok {
		receiver = eventReceiver{s}
	}
	m := &member{socket: s}
	r.hub.Add(&m.fan, receiver)
	u := s.User()

	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.members[s]; known {
		return 0, errors.New("chat: socket is connected already")
	}
	r.members[s] = m
	m.user = r.users[u.Name]
	if m.user == nil {
		m.user = &memoryUser{since: s.Since()}
		r.users[u.Name] = m.user
		m.user.joinSize = len(r.users)
		r.watch(PresenceChange{User: u, Joined: true, Size: len(r.users), JoinSize: len(r.users)})
	}
	m.user.members = append(m.user.members, m)
	return len(m.user.members), nil
}

// Remove implements [Registry].
func (r *MemoryRegistry) Remove(_ context.Context, s Socket) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[s]
	if m == nil {
		return nil
	}
	delete(r.members, s)
	m.fan.Remove()
	for _, room := range m.rooms {
		r.exit(room, m)
	}
	m.rooms = nil
	u := s.User()
	m.user.members = slices.DeleteFunc(m.user.members, func(o *member) bool { return o == m })
	r.leaveOwn(m, UserChannel(u.Name))
	if len(m.user.members) == 0 {
		delete(r.users, u.Name)
		r.watch(PresenceChange{User: u, Size: len(r.users), JoinSize: m.user.joinSize})
	}
	return nil
}

// Join implements [Registry].
func (r *MemoryRegistry) Join(ctx context.Context, s Socket, channel string) (Position, error) {
	for {
		m, room, fresh, err := r.enter(s, channel)
		if err != nil {
			return Position{}, err
		}
		var start Position
		var open bool
		if room != nil {
			start, open, err = r.joinRoom(ctx, m, room, fresh)
		} else {
			start, open, err = r.joinOwn(ctx, m, channel)
		}
		if err != nil {
			if fresh {
				_ = r.Leave(ctx, s, channel)
			}
			return Position{}, err
		}
		if open {
			return start, nil
		}
		// Meanwhile the room was closed, or one's own channel has become one.
	}
}

// enter notes that s is in the channel, and reports whether that is new. There is
// no room when it is its user's own channel and nothing was sent there yet.
func (r *MemoryRegistry) enter(s Socket, channel string) (m *member, room *memoryRoom, fresh bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m = r.members[s]
	if m == nil {
		return nil, nil, false, errors.New("chat: socket is not connected")
	}
	own := r.owner(channel) == m.user
	room = r.rooms[channel]
	if room == nil && own {
		fresh = m.own == outside
		m.own = max(m.own, joining)
		return m, nil, fresh, nil
	}
	if room == nil {
		room = r.open(channel)
	}
	if own {
		m.own = outside // the room knows
	}
	return m, room, r.add(m, room), nil
}

// joinRoom has what follows the returned place delivered to m. It reports false
// when the room is closed.
func (r *MemoryRegistry) joinRoom(ctx context.Context, m *member, room *memoryRoom, fresh bool) (start Position, open bool, err error) {
	if !room.line.Begun() {
		last, err := r.history.Last(ctx, room.channel)
		if err != nil {
			return Position{}, false, err
		}
		room.line.Begin(sequence.Position(last))
	}
	open = room.line.At(func(last sequence.Position) {
		start = Position(last)
		m.fan.Join(room.channel)
	})
	switch {
	case strings.HasPrefix(room.channel, "@"): // nobody is told who is there
	case m.socket.User().Admin():
		m.fan.Join(adminsOf(room.channel))
	case !fresh:
		m.fan.Leave(adminsOf(room.channel)) // it may have been one's
	}
	if open && !fresh {
		err = m.fan.Flush(ctx)
	}
	return start, open, err
}

// joinOwn finds where m's user's own channel goes on. It reports false when that
// is a room by now, or m has left.
func (r *MemoryRegistry) joinOwn(ctx context.Context, m *member, channel string) (start Position, open bool, err error) {
	read := false
	for {
		r.mu.Lock()
		switch {
		case r.rooms[channel] != nil || m.own == outside:
			r.mu.Unlock()
			return Position{}, false, nil
		case read && !m.user.known:
			m.user.own, m.user.known = start, true
		}
		if m.user.known {
			m.own = joined
			start = m.user.own
			r.mu.Unlock()
			return start, true, nil
		}
		r.mu.Unlock()
		// Whatever is sent from here on opens the room: nothing gets lost between
		// the reading of the place and the use of it.
		last, err := r.history.Last(ctx, channel)
		if err != nil {
			return Position{}, false, err
		}
		start, read = last, true
	}
}

// Leave implements [Registry].
func (r *MemoryRegistry) Leave(ctx context.Context, s Socket, channel string) error {
	r.mu.Lock()
	m, room := r.members[s], r.rooms[channel]
	at := -1
	if m != nil && room != nil {
		at = slices.Index(m.rooms, room)
	}
	if at < 0 {
		if m != nil && r.owner(channel) == m.user {
			r.leaveOwn(m, channel)
		}
		r.mu.Unlock()
		return nil
	}
	m.rooms = slices.Delete(m.rooms, at, at+1)
	m.fan.Leave(channel)
	m.fan.Leave(adminsOf(channel))
	r.exit(room, m)
	r.mu.Unlock()

	return m.fan.Flush(ctx)
}

// Publish implements [Registry].
func (r *MemoryRegistry) Publish(ctx context.Context, m Message) error {
	offered := latency.Now()
	if err := r.hub.Wait(ctx); err != nil {
		return err
	}
	var f fanout.Frame
	for {
		room := r.addressee(m.Channel)
		if room == nil {
			return nil
		}
		if f.Bytes == nil {
			f = messageFrame(m)
			f.Offered = offered
		}
		if room.line.Offer(sequence.Position(m.Position), f) {
			return nil
		}
	}
}

// CatchUp says that the history of a channel goes as far as last: what the sockets
// here miss up to there is read from it and delivered. They are closed with
// [CloseTooSlow] when that is gone, or when last is of another epoch, so that they
// resume. A registry that may have missed messages calls it; it returns at once.
func (r *MemoryRegistry) CatchUp(channel string, last Position) {
	r.mu.Lock()
	room := r.rooms[channel]
	if u := r.owner(channel); room == nil && u != nil && u.known && u.own != last {
		room = r.open(channel)
	}
	r.mu.Unlock()
	if room != nil {
		room.line.Expect(sequence.Position(last))
	}
}

// addressee is the room of a channel, nil when nobody is in it.
func (r *MemoryRegistry) addressee(channel string) *memoryRoom {
	r.mu.Lock()
	defer r.mu.Unlock()
	room := r.rooms[channel]
	if u := r.owner(channel); room == nil && u != nil && u.listens() {
		room = r.open(channel)
	}
	return room
}

// Connected implements [Registry].
func (r *MemoryRegistry) Connected(_ context.Context, channel string) ([]Presence, error) {
	r.mu.Lock()
	var list []Presence
	if channel == "" {
		list = make([]Presence, 0, len(r.users))
		for _, u := range r.users {
			list = append(list, Presence{u.user(), len(u.members), u.since})
		}
	} else if room := r.rooms[channel]; room != nil {
		list = make([]Presence, 0, len(room.users))
		for u, in := range room.users {
			list = append(list, Presence{u.userIn(room), in.connections, in.since})
		}
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b Presence) int { return strings.Compare(a.User.Name, b.User.Name) })
	return list, nil
}

// Flush implements [Flusher]. Messages that wait for one before them, which this
// node was not given yet, are delivered too, unless the history does not have it.
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

// Announce implements [Notifier].
func (r *MemoryRegistry) Announce(channel string, adminsOnly bool, events []Event) {
	group := channel
	if adminsOnly {
		group = adminsOf(channel)
	}
	frames := make([]fanout.Frame, len(events))
	for i := range events {
		frames[i] = eventFrame(&events[i])
	}
	r.hub.Publish(group, frames...)
}

// adminsOf is the group of the admins in a channel. Its name is no channel's.
func adminsOf(channel string) string { return "\x00" + channel }

// owner is whose own channel it is, if anybody's who is connected. Under mu.
func (r *MemoryRegistry) owner(channel string) *memoryUser {
	name, own := strings.CutPrefix(channel, "@")
	if !own {
		return nil
	}
	return r.users[name]
}

// user is who it is, in the role of the newest socket: a refreshed token may have
// brought another. Under the registry's mu.
func (u *memoryUser) user() User { return u.members[len(u.members)-1].socket.User() }

// userIn is who it is in a room, in the role of the newest socket there. Under the
// registry's mu.
func (u *memoryUser) userIn(room *memoryRoom) User {
	for _, m := range slices.Backward(u.members) {
		if slices.Contains(m.rooms, room) {
			return m.socket.User()
		}
	}
	return u.user() // never: whoever is in the room has a socket there
}

// listens reports whether a socket of the user's is in the user's own channel.
// Under the registry's mu.
func (u *memoryUser) listens() bool {
	return slices.ContainsFunc(u.members, func(m *member) bool { return m.own != outside })
}

// eventReceiver is a Socket that is none of this package's.
type eventReceiver struct{ Socket }

func (r eventReceiver) Receive(b fanout.Batch) {
	for _, f := range b.Frames {
		switch e := f.Event.(type) {
		case *Message:
			r.Deliver(Event{Type: EventMessage, Message: *e})
		case *Event:
			r.Deliver(*e)
		}
	}
}
