package chat

import (
	"hash/maphash"
	"strings"
	"sync"
)

// The registry has no lock for all. Users, channels and socket ids are spread over stripes,
// each with a lock of its own. A publisher holds the lock of one stripe while it looks up
// its channel.
//
// Lock order: userStripe.mu, channelStripe.mu, then idStripe.mu, MemoryRegistry.sizeMu or
// the lock of a sequencer. A call that needs two user stripes locks them in the order of
// their indices. It holds one channel stripe at most. No lock is held while the history or
// a socket is called, except for the methods ID, User and Since of a socket.

// stripes is how many stripes of each kind there are: enough for many cores to seldom meet.
const stripes = 64

// userStripe is a part of the users.
type userStripe struct {
	index int

	mu    sync.Mutex             // guards users, and all fields of them and of their members
	users map[string]*memoryUser // by name

	_ [64 - 24]byte // one cache line for each stripe
}

// channelStripe is a part of the channels.
type channelStripe struct {
	mu    sync.Mutex             // guards rooms and the fields of each
	rooms map[string]*memoryRoom // by channel; a channel without members here has none

	_ [64 - 16]byte
}

// idStripe is a part of the sockets.
type idStripe struct {
	mu      sync.Mutex
	members map[string]*member // by the socket's id

	_ [64 - 16]byte
}

// registryStripes are the stripes of a registry.
type registryStripes struct {
	seed     maphash.Seed
	users    [stripes]userStripe
	channels [stripes]channelStripe
	ids      [stripes]idStripe
}

func newRegistryStripes() *registryStripes {
	s := &registryStripes{seed: maphash.MakeSeed()}
	for i := range stripes {
		s.users[i].index = i
		s.users[i].users = make(map[string]*memoryUser)
		s.channels[i].rooms = make(map[string]*memoryRoom)
		s.ids[i].members = make(map[string]*member)
	}
	return s
}

func (s *registryStripes) of(key string) int { return int(maphash.String(s.seed, key) % stripes) }

// user returns the stripe of a user.
func (s *registryStripes) user(name string) *userStripe { return &s.users[s.of(name)] }

// channel returns the stripe of a channel.
func (s *registryStripes) channel(name string) *channelStripe { return &s.channels[s.of(name)] }

// owner returns the name of the user of a user channel, and that user's stripe. The stripe is
// nil for any other channel.
func (s *registryStripes) owner(channel string) (name string, stripe *userStripe) {
	name, ofUser := strings.CutPrefix(channel, "@")
	if !ofUser {
		return "", nil
	}
	return name, s.user(name)
}

// member returns the member with a socket's id, nil if there is none.
func (s *registryStripes) member(id string) *member {
	ids := &s.ids[s.of(id)]
	ids.mu.Lock()
	defer ids.mu.Unlock()
	return ids.members[id]
}

// insert adds a member and reports whether its socket's id is new.
func (s *registryStripes) insert(id string, m *member) bool {
	ids := &s.ids[s.of(id)]
	ids.mu.Lock()
	defer ids.mu.Unlock()
	if ids.members[id] != nil {
		return false
	}
	ids.members[id] = m
	return true
}

// drop removes the member with a socket's id.
func (s *registryStripes) drop(id string) {
	ids := &s.ids[s.of(id)]
	ids.mu.Lock()
	defer ids.mu.Unlock()
	delete(ids.members, id)
}

// lockUsers locks a stripe, and another one unless that is nil or the same.
func lockUsers(a, b *userStripe) {
	switch {
	case b == nil || a == b:
		a.mu.Lock()
	case a.index < b.index:
		a.mu.Lock()
		b.mu.Lock()
	default:
		b.mu.Lock()
		a.mu.Lock()
	}
}

// unlockUsers undoes lockUsers.
func unlockUsers(a, b *userStripe) {
	a.mu.Unlock()
	if b != nil && a != b {
		b.mu.Unlock()
	}
}
