package chat

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/reto10/chat/internal/jsonobject"
	"github.com/reto10/chat/internal/password"
	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/internal/throttle"
)

// maxLogin bounds the body of a login in bytes. It has room for a name and a password, or
// for a token in the password's place.
const maxLogin = 8 << 10

// LoginHandler serves POST /login. It expects {"username","password"} as JSON or as a
// form, with the Content-Type of that (else 415), and answers with a [Token] as JSON. A
// wrong name or password is a 401, too many tries are a 429. It answers 404 if the
// service's [Authenticator] is not a [LoginProvider].
func (s *Service) LoginHandler() http.Handler {
	if s.login == nil {
		return http.HandlerFunc(notFound)
	}
	return s.route(methods{http.MethodPost: s.serveLogin})
}

func (s *Service) serveLogin(w http.ResponseWriter, r *http.Request) {
	var credentials struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if _, err := readQuery(r); err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	r = r.WithContext(r.Context()) // a copy: the server needs its own Body to end the connection gently
	body := r.Body
	r.Body = http.MaxBytesReader(w, body, maxLogin)
	// A page of any origin can make a browser post the other types without a preflight.
	switch mediaType(r) {
	case "application/x-www-form-urlencoded":
		if err := r.ParseForm(); err != nil {
			rejectBody(w, r, body, err)
			return
		}
		for name, values := range r.PostForm {
			if (name != "username" && name != "password") || len(values) != 1 {
				problem.Write(w, http.StatusBadRequest, "the form takes one username and one password")
				return
			}
		}
		credentials.Username, credentials.Password = r.PostForm.Get("username"), r.PostForm.Get("password")
	case "application/json":
		if err := jsonobject.Decode(r.Body, &credentials); err != nil {
			rejectBody(w, r, body, err)
			return
		}
	default:
		w.Header().Set("Accept-Post", "application/json, application/x-www-form-urlencoded")
		problem.Write(w, http.StatusUnsupportedMediaType, "the Content-Type is neither application/json nor application/x-www-form-urlencoded")
		return
	}
	if credentials.Username == "" || credentials.Password == "" {
		problem.Write(w, http.StatusBadRequest, "username and password are needed")
		return
	}
	networks := networksOf(s.cfg.clientAddr(r))
	try, wait, ok := s.logins.take(credentials.Username, networks)
	if !ok {
		s.counts.refusedLogins.Add(1)
		setRetryAfter(w, wait)
		problem.Write(w, http.StatusTooManyRequests, "too many tries, wait")
		return
	}
	token, err := s.login.Login(password.From(r.Context(), try.standing, networks), credentials.Username, credentials.Password)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		try.failed()
		s.counts.refusedLogins.Add(1)
		detail := "wrong username or password"
		if errors.Is(err, password.ErrPassword) { // says nothing about the user
			detail += ": " + password.Possible(credentials.Password).Error()
		}
		s.rejectRequest(w, r, wrapf(ErrUnauthenticated, "%s", detail))
	case err != nil:
		if errors.Is(err, ErrBusy) {
			try.busy()
		} else {
			try.unknown()
		}
		s.rejectRequest(w, r, s.unavailable(portAuthenticator, "logging in", err))
	default:
		try.succeeded()
		s.counts.logins.Add(1)
		answer(w, http.StatusOK, token)
	}
}

func mediaType(r *http.Request) string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// The limits of tries to log in. A user has loginBurst failed tries from one network, then
// one more every loginEvery. Wider limits bound the tries at one user from many networks,
// and at many users from one network. A login that succeeds counts too, against limits
// that are much larger: checking a right password takes just as long.
//
// One client can exhaust a limit that many share: that of all networks of a user, or of
// all users of a network. Such a limit therefore rejects only users who failed before. The
// first tries of a user from a wide network have a reserve. A user who logged in lately
// from the same network is not limited by the tries of others at all.
const (
	loginBurst = 10
	loginEvery = 12 * time.Second

	networkWider = 4 // factor for all users from one network

	// The reserve of a network, for first tries of users. The reserve of a wide network is
	// as large as its limit for other tries.
	networkReserve, networkReturns = 200, time.Second

	// For one user from all networks: 1,200 tries an hour, and 800 first tries.
	userBurst, userEvery     = 200, 3 * time.Second
	userReserve, userReturns = 400, 4500 * time.Millisecond
	userOfWideWider          = 2 // factor for the burst of a user from a wide network; the rate is the same

	// First tries of one user from a wide network.
	firstBurst, firstEvery = 3, 30 * time.Minute

	// Logins that succeed. All users of a network together have no limit: each proves a
	// password, and the checks of different networks take turns.
	successWider     = 10 // factor for one user from one network
	successUserWider = 20 // factor for one user from all networks

	// spread is the largest random addition to the Retry-After of a shared limit, so that
	// its clients do not all retry at once.
	spread = 10 * time.Second

	busyCosts = 4 // tries that end with ErrBusy count as one failure of a network

	throttleKeys = 100_000 // keys that each limiter remembers
	seenFor      = 7 * 24 * time.Hour
)

// wideNetworks are the networks around the one that a client is counted by: a flood may
// use all addresses of one.
var wideNetworks = []struct{ bits4, bits6, wider int }{
	{bits6: 48, wider: 16 * networkWider}, // what a provider gives a large customer
	{bits6: 56, wider: 4 * networkWider},  // a home
	{bits4: 24, wider: 8 * networkWider},
}

// networksOf returns the networks that tries from an address count for, the widest first.
// They are the /24 and the address of IPv4, and the /48, /56 and /64 of IPv6, each of which
// may belong to one customer. Text that is no address counts as a network of its own.
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

// budget is a shared limit. Once all is exhausted, first tries come out of the reserve.
type budget struct{ all, reserve *throttle.Limiter }

// loginLimits bounds tries to log in. A limiter's keys are users, networks, or pairs of
// both, never a mixture.
type loginLimits struct {
	failure struct {
		both, bothWide, first *throttle.Limiter
		network, user         budget
		wide                  map[string]budget // by the end of a network: "/48"
	}
	success struct{ both, user *throttle.Limiter }
	// Where logins succeeded lately: users with their narrow networks, and the widest
	// networks.
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

// counted is a try that a limiter counted under a key.
type counted struct {
	limiter *throttle.Limiter
	key     string
}

// loginTry is a try to log in. It is counted as a failure and as a success until its
// outcome is known.
type loginTry struct {
	failure, success []counted
	ofNetworks       int    // index in failure of the first that is counted by network alone, 0 for none
	seen             func() // records that the user logged in from here
	standing         password.Standing
}

// take counts a try before it is made, so that concurrent tries count too. If ok, the
// caller then calls exactly one of the outcome methods of the try. If not, wait is the time
// until the next try.
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
			try.unknown()
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

// unknown ends a try whose password was not checked.
func (t *loginTry) unknown() { giveBack(t.failure); giveBack(t.success) }

// busy ends a try that was not checked because too many others waited. With a probability
// of one in busyCosts it counts as a failure of its networks, so that networks that keep
// hundreds of tries waiting reach their limits.
func (t *loginTry) busy() {
	if n := t.ofNetworks; n > 0 && rand.IntN(busyCosts) == 0 {
		t.failure = t.failure[:n]
	}
	t.unknown()
}
