package chat

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/sequence"
)

// Registry holds the live sockets and brings messages to them. The one in memory
// is the default; one that spans several nodes usually embeds a [MemoryRegistry],
// carries messages between the nodes and hands them to it.
//
// Its methods are safe for concurrent use and respect ctx; those that take a
// Socket are called one after the other for each socket. An error means that it
// cannot be done now ("unavailable" for a user).
type Registry interface {
	// Connect adds a socket, which is in no channel yet, and returns how many
	// its user has now on all nodes, s included.
	Connect(ctx context.Context, s Socket) (sockets int, err error)

	// Disconnect removes a socket from every channel and from the registry. It
	// is called once for each Connect that succeeded and does not wait for
	// anything remote: what cannot be told now is told later.
	Disconnect(ctx context.Context, s Socket) error

	// Join makes s a member of a channel. Every message after the returned place
	// is delivered to s, in order, once; to one that is a member already, all up
	// to that place has been delivered. The place may lie behind the history's
	// last: what is stored and not handed on yet comes. "" is everyone's channel,
	// which the service joins each socket to. A socket whose user's role has
	// changed joins its channels again.
	Join(ctx context.Context, s Socket, channel string) (Place, error)

	// Leave undoes Join. What is broadcast after it returns is not delivered.
	Leave(ctx context.Context, s Socket, channel string) error

	// Broadcast delivers a stored message to the members of its channel on all
	// nodes, and returns when it is handed on. Concurrent calls may come in
	// another order than the places; delivery is in the order of the places, and
	// a missing one is read from the history first.
	Broadcast(ctx context.Context, m Message) error

	// Connected lists who is in a channel on all nodes, sorted by name; "" lists
	// everyone.
	Connected(ctx context.Context, channel string) ([]Presence, error)

	// Close closes a user's sockets on all nodes, oldest first, until keep
	// remain, and returns how many those were.
	Close(ctx context.Context, username string, keep int, code CloseCode, reason string) (closed int, err error)
}

// Socket is a live connection as a [Registry] sees it.
type Socket interface {
	Session() string  // unique among all sockets
	User() User       // whose it is; the role may change with the token
	Since() time.Time // when it came

	// Deliver queues an event. It never blocks.
	Deliver(Event)
	// Close sends what was delivered, then the close frame. It never blocks.
	Close(code CloseCode, reason string)
}

// Presence is a user in a channel.
type Presence struct {
	User        User
	Connections int       // sockets there, at least 1
	Since       time.Time // when the first of them came
}

// PresenceChange says that a user's first socket came to a channel, or that the
// last one went.
type PresenceChange struct {
	Channel string // "": the service itself
	User    User
	Joined  bool // false: left
	Size    int  // users there after it
}

// PresenceSource is a [Registry] that tells of comings and goings on all nodes.
// Without it no user_joined and user_left are sent. A registry that embeds a
// [MemoryRegistry] and spans several nodes has its own: the embedded one knows
// of this node alone.
type PresenceSource interface {
	// WatchPresence has fn called for every change, those of one user in order.
	// It is called once, before the registry is used. fn returns at once and
	// calls nothing of the registry.
	WatchPresence(fn func(PresenceChange))
}

// Notifier is a [Registry] that can bring an event to the sockets of this node
// alone. A [PresenceSource] has to be one, too.
type Notifier interface {
	// Notify delivers events to this node's members of a channel, or to the
	// admins among them only. It returns at once.
	Notify(channel string, adminsOnly bool, events []Event)
}

// HistoryReader is a [Registry] that reads missing messages from the history.
type HistoryReader interface {
	// ReadHistory is called once, before the registry is used.
	ReadHistory(h History)
}

// Flusher is a [Registry] that can tell when what was broadcast before has been
// delivered to the sockets of this node.
type Flusher interface {
	Flush(ctx context.Context) error
}

// MemoryRegistry is the [Registry] of a single process, and what delivers on
// each node for those that span several. It is a [PresenceSource], a [Notifier],
// a [HistoryReader] and a [Flusher].
type MemoryRegistry struct {
	hub     *fanout.Hub
	history History // set before use
	watch   func(PresenceChange)

	mu       sync.Mutex // guards what follows; not held while anything is delivered
	members  map[Socket]*member
	users    map[string][]*member // oldest first
	channels map[string]*memoryRoom
}

// member is a socket in the registry.
type member struct {
	socket   Socket
	fan      *fanout.Member
	channels []string
}

// memoryRoom is a channel that has members on this node.
type memoryRoom struct {
	line    *sequence.Line[fanout.Frame]
	members int
	users   map[string]*Presence
}

// NewMemoryRegistry makes an empty registry. It may be given to one Service.
func NewMemoryRegistry() *MemoryRegistry {
	return &MemoryRegistry{
		hub:      fanout.NewHub(0),
		history:  NewMemoryHistory(MemoryLimits{}),
		watch:    func(PresenceChange) {},
		members:  make(map[Socket]*member),
		users:    make(map[string][]*member),
		channels: make(map[string]*memoryRoom),
	}
}

// WatchPresence implements [PresenceSource].
func (r *MemoryRegistry) WatchPresence(fn func(PresenceChange)) { r.watch = fn }

// ReadHistory implements [HistoryReader].
func (r *MemoryRegistry) ReadHistory(h History) { r.history = h }

// Deliveries counts what was handed to sockets so far: messages times receivers.
func (r *MemoryRegistry) Deliveries() uint64 { return r.hub.Deliveries() }

// Connect implements [Registry].
func (r *MemoryRegistry) Connect(_ context.Context, s Socket) (int, error) {
	receiver, ok := s.(fanout.Receiver)
	if !ok {
		receiver = eventReceiver{s}
	}
	m := &member{socket: s, fan: r.hub.Add(receiver)}
	name := s.User().Name

	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.members[s]; known {
		return 0, errors.New("chat: socket is connected already")
	}
	r.members[s] = m
	r.users[name] = append(r.users[name], m)
	r.enter("", m)
	return len(r.users[name]), nil
}

// Disconnect implements [Registry].
func (r *MemoryRegistry) Disconnect(_ context.Context, s Socket) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[s]
	if m == nil {
		return nil
	}
	delete(r.members, s)
	m.fan.Remove()
	for _, channel := range m.channels {
		if channel != "" {
			r.exit(channel, m)
		}
		r.release(channel)
	}
	r.exit("", m)
	name := s.User().Name
	r.users[name] = slices.DeleteFunc(r.users[name], func(o *member) bool { return o == m })
	if len(r.users[name]) == 0 {
		delete(r.users, name)
	}
	return nil
}

// Join implements [Registry].
func (r *MemoryRegistry) Join(ctx context.Context, s Socket, channel string) (Place, error) {
	for {
		m, room, fresh, err := r.acquire(s, channel)
		if err != nil {
			return Place{}, err
		}
		if !room.line.Begun() {
			last, err := r.history.Last(ctx, channel)
			if err != nil {
				if fresh {
					_ = r.Leave(ctx, s, channel)
				}
				return Place{}, err
			}
			room.line.Begin(sequence.Place(last))
		}
		var start Place
		open := room.line.At(func(last sequence.Place) {
			start = Place(last)
			m.fan.Join(channel)
		})
		if s.User().Admin() {
			m.fan.Join(adminsOf(channel))
		} else if !fresh {
			m.fan.Leave(adminsOf(channel)) // it may have been one's
		}
		if open && !fresh {
			err = m.fan.Flush(ctx)
		}
		if open {
			return start, err
		}
		// The room was closed meanwhile: s was disconnected, or has left.
	}
}

// acquire notes that s is in the channel, and reports whether that is new.
func (r *MemoryRegistry) acquire(s Socket, channel string) (*member, *memoryRoom, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[s]
	if m == nil {
		return nil, nil, false, errors.New("chat: socket is not connected")
	}
	if slices.Contains(m.channels, channel) {
		return m, r.room(channel), false, nil
	}
	room := r.room(channel)
	room.members++
	m.channels = append(m.channels, channel)
	if channel != "" {
		r.enter(channel, m)
	}
	return m, room, true, nil
}

// Leave implements [Registry].
func (r *MemoryRegistry) Leave(ctx context.Context, s Socket, channel string) error {
	r.mu.Lock()
	m := r.members[s]
	at := -1
	if m != nil {
		at = slices.Index(m.channels, channel)
	}
	if at < 0 {
		r.mu.Unlock()
		return nil
	}
	m.channels = slices.Delete(m.channels, at, at+1)
	m.fan.Leave(channel)
	m.fan.Leave(adminsOf(channel))
	if channel != "" { // who is connected is in everyone's channel until Disconnect
		r.exit(channel, m)
	}
	r.release(channel)
	r.mu.Unlock()

	return m.fan.Flush(ctx)
}

// Broadcast implements [Registry].
func (r *MemoryRegistry) Broadcast(ctx context.Context, m Message) error {
	if err := r.hub.Wait(ctx); err != nil {
		return err
	}
	f := messageFrame(m)
	for {
		r.mu.Lock()
		room := r.channels[m.Channel]
		r.mu.Unlock()
		if room == nil || room.line.Offer(sequence.Place(m.Place), f) {
			return nil
		}
	}
}

// Connected implements [Registry].
func (r *MemoryRegistry) Connected(_ context.Context, channel string) ([]Presence, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	room := r.channels[channel]
	if room == nil {
		return nil, nil
	}
	list := make([]Presence, 0, len(room.users))
	for name, p := range room.users {
		// A refreshed token may have brought another role.
		all := r.users[name]
		p.User = all[len(all)-1].socket.User()
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b Presence) int { return strings.Compare(a.User.Name, b.User.Name) })
	return list, nil
}

// Flush implements [Flusher].
func (r *MemoryRegistry) Flush(ctx context.Context) error { return r.hub.Flush(ctx) }

// Close implements [Registry].
func (r *MemoryRegistry) Close(_ context.Context, username string, keep int, code CloseCode, reason string) (int, error) {
	r.mu.Lock()
	all := r.users[username]
	var surplus []*member
	if len(all) > keep {
		surplus = slices.Clone(all[:len(all)-keep])
	}
	r.mu.Unlock()
	for _, m := range surplus {
		m.fan.Do(func() { m.socket.Close(code, reason) })
	}
	return len(surplus), nil
}

// Notify implements [Notifier].
func (r *MemoryRegistry) Notify(channel string, adminsOnly bool, events []Event) {
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

// adminsOf is the group of the admins in a channel. Its name is no channel's.
func adminsOf(channel string) string { return "\x00" + channel }

// room is the channel's room, made when there is none. Under mu.
func (r *MemoryRegistry) room(channel string) *memoryRoom {
	room := r.channels[channel]
	if room == nil {
		room = &memoryRoom{users: make(map[string]*Presence)}
		room.line = sequence.New(channelHistory{r, channel},
			func(f fanout.Frame) { r.hub.Publish(channel, f) },
			func() { r.resync(channel) })
		r.channels[channel] = room
	}
	return room
}

// release closes the room when nobody is left in it. Under mu.
func (r *MemoryRegistry) release(channel string) {
	room := r.channels[channel]
	room.members--
	r.closeEmpty(channel, room)
}

func (r *MemoryRegistry) closeEmpty(channel string, room *memoryRoom) {
	if room.members <= 0 && len(room.users) == 0 {
		room.line.Close()
		delete(r.channels, channel)
	}
}

// resync ends the sockets in a channel whose missing messages are gone: when
// they resume they are told so.
func (r *MemoryRegistry) resync(channel string) {
	r.hub.Each(channel, func(to fanout.Receiver) {
		to.(interface{ Close(CloseCode, string) }).Close(CloseTooSlow, "messages were lost, resume")
	})
}

// enter counts m's user into a channel. Under mu.
func (r *MemoryRegistry) enter(channel string, m *member) {
	if strings.HasPrefix(channel, "@") {
		return // everybody's own: nobody else is told
	}
	u, room := m.socket.User(), r.room(channel)
	p := room.users[u.Name]
	if p == nil {
		p = &Presence{Since: m.socket.Since()}
		if channel != "" {
			p.Since = time.Now().UTC()
		}
		room.users[u.Name] = p
		defer func() { r.watch(PresenceChange{channel, u, true, len(room.users)}) }()
	}
	p.User = u
	p.Connections++
}

// exit undoes enter. Under mu.
func (r *MemoryRegistry) exit(channel string, m *member) {
	room := r.channels[channel]
	name := m.socket.User().Name
	if room == nil || room.users[name] == nil {
		return
	}
	p := room.users[name]
	if p.Connections--; p.Connections == 0 {
		delete(room.users, name)
		r.watch(PresenceChange{channel, m.socket.User(), false, len(room.users)})
		r.closeEmpty(channel, room)
	}
}

// channelHistory lets a channel's line read what it missed.
type channelHistory struct {
	registry *MemoryRegistry
	channel  string
}

// fillPage is how many missing messages are read at once.
const fillPage = 256

func (h channelHistory) After(ctx context.Context, p sequence.Place) ([]sequence.Item[fanout.Frame], error) {
	msgs, err := h.registry.history.After(ctx, h.channel, Place(p), fillPage)
	if errors.Is(err, ErrGone) {
		return nil, errors.Join(err, sequence.ErrGone)
	}
	items := make([]sequence.Item[fanout.Frame], len(msgs))
	for i, m := range msgs {
		items[i] = sequence.Item[fanout.Frame]{Place: sequence.Place(m.Place), Value: messageFrame(m)}
	}
	return items, err
}

// eventReceiver is a Socket that is none of this package's.
type eventReceiver struct{ Socket }

func (r eventReceiver) Receive(b fanout.Batch) {
	for _, f := range b.Frames {
		r.Deliver(f.Event.(Event))
	}
}
