package chat

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat/internal/password"
	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/internal/throttle"
	"github.com/reto10/chat/internal/wire"
)

// A wrong name or password costs a try: loginBurst are free for a user from one
// network, then one every loginEvery. To guess from many networks, or at many
// users from one, is bounded likewise, but wider: nobody else's wrong guesses
// keep a user out for long. A login that succeeds costs one of other tries, of which
// there are many more: checking a password takes long, right or wrong.
const (
	loginBurst   = 10
	loginEvery   = 12 * time.Second
	networkWider = 4  // for all users from a network
	userWider    = 20 // for a user from all networks

	successWider        = 10 // logins that succeed, of a user from a network
	successNetworkWider = 40 // of all users from a network
	successUserWider    = 20 // of a user from all networks

	throttleKeys = 100_000 // that a limiter remembers

	// maxLogin bounds the body of a login, which anybody may send: a name and a
	// password, or a token in its place.
	maxLogin = 8 << 10
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

// loginLimits bounds tries to log in. A key is a user, a network, or both; keys of one
// limiter are of one kind.
type loginLimits struct {
	failure, success struct{ both, network, user *throttle.Limiter }
	wide             map[string]*throttle.Limiter // of failures, by the end of a network: "/48"
}

func newLoginLimits() *loginLimits {
	limiter := func(wider int) *throttle.Limiter {
		return throttle.NewLimiter(wider*loginBurst, loginEvery/time.Duration(wider), throttleKeys)
	}
	l := &loginLimits{wide: make(map[string]*throttle.Limiter)}
	l.failure.both, l.failure.network, l.failure.user = limiter(1), limiter(networkWider), limiter(userWider)
	l.success.both, l.success.network, l.success.user = limiter(successWider), limiter(successNetworkWider), limiter(successUserWider)
	for _, w := range wideNetworks {
		l.wide[fmt.Sprintf("/%d", max(w.bits4, w.bits6))] = limiter(w.wider)
	}
	return l
}

// counted is one of a limiter's tries that was taken.
type counted struct {
	limiter *throttle.Limiter
	key     string
}

// loginTry is a try to log in, counted as one that fails and as one that succeeds.
type loginTry struct{ failure, success []counted }

// take counts a try before it is made, so that concurrent ones count, too. The caller
// calls one of the methods of what it returns when the try is over.
func (l *loginLimits) take(user string, networks []string) (try loginTry, wait time.Duration, ok bool) {
	from := networks[len(networks)-1]
	both := user + "\n" + from
	for _, wide := range networks[:len(networks)-1] {
		try.failure = append(try.failure, counted{l.wide[wide[strings.LastIndexByte(wide, '/'):]], wide})
	}
	try.failure = append(try.failure,
		counted{l.failure.network, from}, counted{l.failure.both, both}, counted{l.failure.user, user})
	try.success = []counted{{l.success.network, from}, {l.success.both, both}, {l.success.user, user}}
	all := slices.Concat(try.failure, try.success)
	for i, c := range all {
		if wait, ok := c.limiter.Take(c.key); !ok {
			giveBack(all[:i])
			return loginTry{}, wait, false
		}
	}
	return try, 0, true
}

func giveBack(tries []counted) {
	for _, c := range tries {
		c.limiter.Return(c.key)
	}
}

func (t loginTry) failed()    { giveBack(t.success) }
func (t loginTry) succeeded() { giveBack(t.failure) }

// neither is for a try about which nothing was found out.
func (t loginTry) neither() { giveBack(t.failure); giveBack(t.success) }

// LoginHandler answers POST of {"username","password"}, as JSON or as a form and with
// the Content-Type of that (else 415), with {"access_token","token_type","expires_in"},
// the last in seconds; 401 for a wrong pair and 429 for too many tries. It is not found (404) when the service's
// [Authenticator] is no [LoginProvider].
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
		s.refuseRequest(w, r, err)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
	// A page of any origin may have a browser post other types without being asked.
	switch mediaType(r) {
	case "application/x-www-form-urlencoded":
		if err := r.ParseForm(); err != nil {
			refuseBody(w, r, err)
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
		if err := wire.DecodeStrict(r.Body, &credentials); err != nil {
			refuseBody(w, r, err)
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
	token, err := s.login.Login(password.From(r.Context(), networks), credentials.Username, credentials.Password)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		try.failed()
		s.counts.refusedLogins.Add(1)
		detail := "wrong username or password"
		if errors.Is(err, password.ErrPassword) { // the same for every user
			detail += ": " + password.Possible(credentials.Password).Error()
		}
		s.refuseRequest(w, r, wrapf(ErrUnauthenticated, "%s", detail))
		return
	case err != nil:
		try.neither()
		s.refuseRequest(w, r, s.unavailable(portAuthenticator, "logging in", err))
		return
	}
	try.succeeded()
	s.counts.logins.Add(1)
	answer(w, http.StatusOK, struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"`
	}{token.AccessToken, "bearer", int64(token.ExpiresIn / time.Second)})
}

func mediaType(r *http.Request) string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}
