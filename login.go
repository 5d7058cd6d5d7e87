package chat

import (
	"errors"
	"mime"
	"net/http"
	"time"

	"github.com/reto10/chat/internal/jsonobject"
	"github.com/reto10/chat/internal/password"
	"github.com/reto10/chat/internal/problem"
)

// maxLogin bounds the body of a login, which anybody may send: a name and a password, or
// a token in its place.
const maxLogin = 8 << 10

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
		if err := jsonobject.Decode(r.Body, &credentials); err != nil {
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
	token, err := s.login.Login(password.From(r.Context(), try.standing, networks), credentials.Username, credentials.Password)
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
	case errors.Is(err, ErrBusy):
		try.busy()
		s.refuseRequest(w, r, s.unavailable(portAuthenticator, "logging in", err))
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
