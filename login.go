package chat

import (
	"errors"
	"mime"
	"net/http"
	"net/netip"
	"time"

	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/internal/throttle"
	"github.com/reto10/chat/internal/wire"
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

	// maxLogin bounds the body of a login, which anybody may send: a name and a
	// password, or a token in its place.
	maxLogin = 8 << 10
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

// LoginHandler answers POST of {"username","password"}, as JSON or as a form, with
// {"access_token","token_type","expires_in"}, the last in seconds; 401 for a wrong
// pair and 429 for too many of these. It is not found (404) when the service's
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
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
	if mediaType(r) == "application/x-www-form-urlencoded" {
		if err := r.ParseForm(); err != nil {
			refuseBody(w, err)
			return
		}
		for name, values := range r.PostForm {
			if (name != "username" && name != "password") || len(values) != 1 {
				problem.Write(w, http.StatusBadRequest, "the form takes one username and one password")
				return
			}
		}
		credentials.Username, credentials.Password = r.PostForm.Get("username"), r.PostForm.Get("password")
	} else if err := wire.DecodeStrict(r.Body, &credentials); err != nil {
		refuseBody(w, err)
		return
	}
	if credentials.Username == "" || credentials.Password == "" {
		problem.Write(w, http.StatusBadRequest, "username and password are needed")
		return
	}
	from := network(s.cfg.clientAddr(r))
	if wait, ok := s.logins.take(credentials.Username, from); !ok {
		s.counts.refusedLogins.Add(1)
		setRetryAfter(w, wait)
		problem.Write(w, http.StatusTooManyRequests, "too many tries, wait")
		return
	}
	token, err := s.login.Login(r.Context(), credentials.Username, credentials.Password)
	if errors.Is(err, ErrUnauthenticated) {
		s.counts.refusedLogins.Add(1)
		s.refuseRequest(w, r, wrapf(ErrUnauthenticated, "wrong username or password"))
		return
	}
	// Only a wrong pair costs a try.
	s.logins.giveBack(credentials.Username, from)
	if err != nil {
		s.refuseRequest(w, r, s.unavailable(portAuthenticator, "logging in", err))
		return
	}
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
