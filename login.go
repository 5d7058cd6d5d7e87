package chat

import (
	"net/netip"
	"time"

	"github.com/reto10/chat/internal/throttle"
)

// A wrong name or password costs a try: loginBurst are free for a user from one
// network, then one every loginEvery. To guess from many networks, or at many
// users from one, is bounded likewise, but wider: nobody else's wrong guesses
// keep a user out for long. Tries that succeed do not count.
const (
	loginBurst   = 10
	loginEvery   = 12 * time.Second
	networkWider = 4  // for all users from a network
	userWider    = 20 // for a user from all networks

	throttleKeys = 100_000 // that a limiter remembers
)

// loginLimits bounds tries to log in.
type loginLimits struct {
	byBoth, byNetwork, byUser *throttle.Limiter
}

func newLoginLimits() loginLimits {
	limiter := func(wider int) *throttle.Limiter {
		return throttle.NewLimiter(wider*loginBurst, loginEvery/time.Duration(wider), throttleKeys)
	}
	return loginLimits{limiter(1), limiter(networkWider), limiter(userWider)}
}

// take counts a try before it is made, so that concurrent ones count, too.
func (l loginLimits) take(user, from string) (wait time.Duration, ok bool) {
	if wait, ok := l.byNetwork.Take(from); !ok {
		return wait, false
	}
	if wait, ok := l.byBoth.Take(user + "\n" + from); !ok {
		l.byNetwork.Return(from)
		return wait, false
	}
	if wait, ok := l.byUser.Take(user); !ok {
		l.byNetwork.Return(from)
		l.byBoth.Return(user + "\n" + from)
		return wait, false
	}
	return 0, true
}

// giveBack undoes take for a try that was not wrong.
func (l loginLimits) giveBack(user, from string) {
	l.byNetwork.Return(from)
	l.byBoth.Return(user + "\n" + from)
	l.byUser.Return(user)
}

// network is what tries to log in are counted by: an IPv4 address, or the /64 of
// an IPv6 one, all of which is one customer's.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Unmap().Is4() {
		return address
	}
	prefix, _ := ip.WithZone("").Prefix(64)
	return prefix.String()
}
