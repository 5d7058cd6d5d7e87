package chat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/reto10/chat/internal/password"
	"github.com/reto10/chat/internal/throttle"
)

// A wrong name or password costs a try: loginBurst are free for a user from one
// network, then one every loginEvery. To guess from many networks, or at many
// users from one, is bounded likewise, but wider. A login that succeeds costs one of
// other tries, of which there are many more: checking a password takes long, right or
// wrong.
//
// What many share, all networks of a user or all users of a network, is easily used up
// by one of them. So it refuses only who failed before: the first tries of a user from a
// wide network come out of a reserve. A user who logged in lately from the very network
// is not refused for what others do at all.
const (
	loginBurst = 10
	loginEvery = 12 * time.Second

	networkWider = 4 // for all users from a network

	// The reserve of a network, for first tries of users. That of a wide one is as large
	// as what it has without.
	networkReserve, networkReturns = 200, time.Second

	// For a user from all networks: 1,200 an hour, and 800 of first tries.
	userBurst, userEvery     = 200, 3 * time.Second
	userReserve, userReturns = 400, 4500 * time.Millisecond
	userOfWideWider          = 2 // the burst of a user from a wide network; as few an hour as from a narrow one

	// First tries of a user from a wide network.
	firstBurst, firstEvery = 3, 30 * time.Minute

	// Logins that succeed. All users of a network have no limit: each proves a password,
	// and the checks of networks take turns.
	successWider     = 10 // of a user from a network
	successUserWider = 20 // of a user from all networks

	// spread is by how much those who share a budget are told to wait longer, at random,
	// so that they do not all retry at once.
	spread = 10 * time.Second

	busyCosts = 4 // tries that end busy, for one that failed of a network

	throttleKeys = 100_000 // that a limiter remembers
	seenFor      = 7 * 24 * time.Hour
)

// wideNetworks are networks around the one that a client is counted by: a flood may
// come from all of one.
var wideNetworks = []struct{ bits4, bits6, wider int }{
	{bits6: 48, wider: 16 * networkWider}, // what a provider gives a large customer
	{bits6: 56, wider: 4 * networkWider},  // a home
	{bits4: 24, wider: 8 * networkWider},
}

// networksOf are what tries to log in from an address are counted by, the widest
// first: of IPv4 its /24 and itself, of IPv6 the /48, /56 and /64, all of which are
// one customer's. What is no address is a network by itself.
func networksOf(address string) []string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return []string{address}
	}
	ip = ip.Unmap().WithZone("")
	bits := []int{48, 56, 64}
	if ip.Is4() {
		bits = []int{24, 32}
	}
	networks := make([]string, len(bits))
	for i, n := range bits {
		prefix, _ := ip.Prefix(n)
		networks[i] = prefix.String()
	}
	return networks
}

// budget is tries that many share. First tries, when these are used up, come out of the
// reserve.
type budget struct{ all, reserve *throttle.Limiter }

// loginLimits bounds tries to log in. A key is a user, a network, or both; keys of one
// limiter are of one kind.
type loginLimits struct {
	failure struct {
		both, bothWide, first *throttle.Limiter
		network, user         budget
		wide                  map[string]budget // by the end of a network: "/48"
	}
	success struct{ both, user *throttle.Limiter }
	// Where logins succeeded lately: users by the narrow networks, and the widest ones.
	seen, networks *throttle.Seen
}

func newLoginLimits() *loginLimits {
	limiter := func(wider int) *throttle.Limiter {
		return throttle.NewLimiter(wider*loginBurst, loginEvery/time.Duration(wider), throttleKeys)
	}
	l := &loginLimits{seen: throttle.NewSeen(throttleKeys, seenFor), networks: throttle.NewSeen(throttleKeys, seenFor)}
	l.failure.both = limiter(1)
	l.failure.bothWide = throttle.NewLimiter(userOfWideWider*loginBurst, loginEvery, throttleKeys)
	l.failure.first = throttle.NewLimiter(firstBurst, firstEvery, throttleKeys)
	l.failure.user = budget{
		all:     throttle.NewLimiter(userBurst, userEvery, throttleKeys),
		reserve: throttle.NewLimiter(userReserve, userReturns, throttleKeys),
	}
	l.failure.network = budget{
		all:     limiter(networkWider),
		reserve: throttle.NewLimiter(networkReserve, networkReturns, throttleKeys),
	}
	l.failure.wide = make(map[string]budget)
	for _, w := range wideNetworks {
		l.failure.wide[fmt.Sprintf("/%d", max(w.bits4, w.bits6))] = budget{all: limiter(w.wider), reserve: limiter(w.wider)}
	}
	l.success.both, l.success.user = limiter(successWider), limiter(successUserWider)
	return l
}

// counted is one of a limiter's tries that was taken.
type counted struct {
	limiter *throttle.Limiter
	key     string
}

// loginTry is a try to log in, counted as one that fails and as one that succeeds.
type loginTry struct {
	failure, success []counted
	ofNetworks       int    // the index of the first of failure that is counted by a network alone, 0 for none
	seen             func() // notes that the user logged in from here
	standing         password.Standing
}

// take counts a try before it is made, so that concurrent ones count, too. The caller
// calls one of the methods of what it returns when the try is over.
func (l *loginLimits) take(user string, networks []string) (try *loginTry, wait time.Duration, ok bool) {
	from, widest := networks[len(networks)-1], networks[0]
	both, bothWide := user+"\n"+from, user+"\n"+widest
	try = &loginTry{
		standing: password.Stranger,
		seen: func() {
			l.seen.Add(user, from)
			l.networks.Add(widest, "")
		},
	}
	defer func() {
		if !ok {
			try.neither()
		}
	}()
	take := func(list *[]counted, limiter *throttle.Limiter, key string) bool {
		if wait, ok = limiter.Take(key); ok {
			*list = append(*list, counted{limiter: limiter, key: key})
		}
		return ok
	}
	if !take(&try.failure, l.failure.both, both) ||
		!take(&try.success, l.success.both, both) ||
		!take(&try.success, l.success.user, user) {
		return try, wait, false
	}
	if l.seen.Has(user, from) {
		try.standing = password.KnownUser
		return try, 0, true
	}
	if l.networks.Has(widest, "") {
		try.standing = password.KnownNetwork
	}
	if !take(&try.failure, l.failure.bothWide, bothWide) {
		return try, wait, false
	}
	first := take(&try.failure, l.failure.first, bothWide)
	shared := func(b budget, key string) bool {
		if take(&try.failure, b.all, key) {
			return true
		}
		after := wait
		if first && take(&try.failure, b.reserve, key) {
			return true
		}
		wait = after + rand.N(spread)
		return false
	}
	if !shared(l.failure.user, user) {
		return try, wait, false
	}
	try.ofNetworks = len(try.failure)
	if !shared(l.failure.network, from) {
		return try, wait, false
	}
	for _, wide := range networks[:len(networks)-1] {
		if !shared(l.failure.wide[wide[strings.LastIndexByte(wide, '/'):]], wide) {
			return try, wait, false
		}
	}
	return try, 0, true
}

func giveBack(tries []counted) {
	for _, c := range tries {
		c.limiter.Return(c.key)
	}
}

func (t *loginTry) failed()    { giveBack(t.success) }
func (t *loginTry) succeeded() { giveBack(t.failure); t.seen() }

// neither is for a try about which nothing was found out.
func (t *loginTry) neither() { giveBack(t.failure); giveBack(t.success) }

// busy is for a try that was not checked because too many wait. Each costs its networks
// the chance of one in busyCosts of a failure, so that those that keep waiting for places
// in their hundreds end.
func (t *loginTry) busy() {
	if n := t.ofNetworks; n > 0 && rand.IntN(busyCosts) == 0 {
		t.failure = t.failure[:n]
	}
	t.neither()
}
