package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reto10/chat/internal/connset"
	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/internal/wsconn"
)

const (
	// maxBody bounds the body of a request.
	maxBody = 64 << 10
	// retryLater is what a client that was turned away should wait.
	retryLater = 5 * time.Second
)

// ServeHTTP serves the routes of the protocol: POST /login, GET /ws/chat,
// GET /users/connected, GET and POST /messages and
// POST /users/{username}/disconnect. Mount it below a prefix with
// [http.StripPrefix]; the socket below "/chat" is then /chat/ws/chat, and
// [Service.SocketHandler] can stand anywhere.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// SocketHandler is the WebSocket alone, for services with a login of their own.
// Mount it without a method, so that other methods than GET are answered, too.
func (s *Service) SocketHandler() http.Handler {
	return s.route(methods{http.MethodGet: s.serveSocket})
}

// routes answers by path, to the letter: nothing is redirected, as an
// [http.ServeMux] would, which knows nothing of a prefix and repeats the query.
func (s *Service) routes() http.Handler {
	fixed := map[string]http.Handler{
		"/login":           s.LoginHandler(),
		"/ws/chat":         s.SocketHandler(),
		"/users/connected": s.ConnectedHandler(),
		"/messages":        s.MessagesHandler(),
	}
	disconnect := s.DisconnectHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, ok := fixed[r.URL.Path]; ok {
			h.ServeHTTP(w, r)
			return
		}
		name, ok := strings.CutPrefix(r.URL.Path, "/users/")
		name, found := strings.CutSuffix(name, "/disconnect")
		if !ok || !found {
			notFound(w, r)
			return
		}
		r.SetPathValue("username", name)
		disconnect.ServeHTTP(w, r)
	})
}

type methods map[string]http.HandlerFunc

// route answers by method, and pages of other origins as far as they are allowed
// (CORS; the WebSocket handshake is checked by serveSocket itself).
func (s *Service) route(m methods) http.Handler {
	names := make([]string, 0, len(m)+1)
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	allow := strings.Join(append(names, http.MethodOptions), ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if origin := r.Header.Get("Origin"); origin != "" && s.originAllowed(r) {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
			if r.Method == http.MethodOptions {
				h.Set("Access-Control-Allow-Methods", allow)
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
				h.Set("Access-Control-Max-Age", "600")
			}
		}
		if r.Method == http.MethodOptions {
			h.Set("Allow", allow)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		serve, ok := m[r.Method]
		if !ok {
			h.Set("Allow", allow)
			problem.Write(w, http.StatusMethodNotAllowed, r.Method+" is not for this address")
			return
		}
		if r.Method == http.MethodPost {
			if err := s.checkPage(r); err != nil {
				s.refuseRequest(w, r, err)
				return
			}
		}
		serve(w, r)
	})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, http.StatusNotFound, "nothing is at this address")
}

func (s *Service) serveSocket(w http.ResponseWriter, r *http.Request) {
	if err := s.acceptSocket(w, r); err != nil {
		s.counts.refused.add(whyRefused(err))
		s.refuseRequest(w, r, err)
	}
}

// acceptSocket takes the connection over, or says why not while it can still be
// answered.
func (s *Service) acceptSocket(w http.ResponseWriter, r *http.Request) (err error) {
	if !s.originAllowed(r) {
		return wrapf(ErrForbidden, "pages of this origin may not connect")
	}
	query, err := readQuery(r)
	if err != nil {
		return err
	}
	notUpgrade, token := wsconn.Check(r), bearerToken(r)
	if notUpgrade != nil && token == "" {
		return notUpgrade
	}
	if wait := s.hasty.Wait(token, time.Now()); wait > 0 {
		return &later{errTooOften, wait} // it need not be checked again
	}
	who, err := s.authenticate(r)
	if err != nil {
		return err
	}
	mine := s.accounts.Hold(who.User.Name)
	release := mine.Release
	defer func() { release() }() // also after a panic, as of a middleware's Hijack
	who.User.Name = mine.Name()  // all sockets of the user share it
	if notUpgrade != nil {
		// A page asks so why its handshake was refused, which it is not told.
		if err := s.wouldRefuse(mine); err != nil {
			return err
		}
		return notUpgrade
	}
	if err := s.countHandshake(mine, token); err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, ErrUnavailable) {
			mine.Unconnect(time.Now())
		}
	}()
	channels, resume, err := s.requestedChannels(r.Context(), query, who)
	if err != nil {
		return err
	}
	if err := s.conns.Room(); err != nil {
		return wrapUnavailable("accepting a socket", err) // waiting is of no use
	}
	if wait, ok := mine.Open(time.Now()); !ok {
		return tooManySockets(wait)
	}
	release = after(release, mine.Closed)
	leave, err := s.enter(r.Context(), who.User.Name)
	if err != nil {
		return err
	}
	release = after(release, leave)
	// Reserved behind the gate: who waits takes no place from others.
	if err := s.conns.Reserve(); err != nil {
		return wrapUnavailable("accepting a socket", err)
	}
	release = after(release, s.conns.Release)
	header := w.Header()
	conn, err := s.sockets.Accept(w, r)
	if err != nil {
		return err
	}
	c := newSocket(s, conn, who, mine)
	c.turnAway = s.refuseLate(conn, header, mine)
	release = func() {} // the socket owns all of it now
	c.start(channels, resume, leave)
	if conn.Lost() {
		panic(http.ErrAbortHandler) // net/http closes the connection
	}
	return nil
}

// after returns what does the last first.
func after(first, last func()) func() {
	return func() {
		last()
		first()
	}
}

func (s *Service) authenticate(r *http.Request) (Identity, error) {
	token := bearerToken(r)
	if token == "" {
		return Identity{}, wrapf(ErrUnauthenticated, "a token is needed")
	}
	return s.identify(r.Context(), token)
}

func (s *Service) authenticateAdmin(r *http.Request) (Identity, error) {
	who, err := s.authenticate(r)
	if err == nil && !who.User.Admin() {
		err = wrapf(ErrForbidden, "for admins only")
	}
	return who, err
}

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func answer(w http.ResponseWriter, status int, body any) {
	answerJSON(w, status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // an error is the client's end
}

// answerJSON begins an answer whose body is JSON.
func answerJSON(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
}

func refuseBody(w http.ResponseWriter, r *http.Request, err error) {
	if limit, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // http.MaxBytesReader cannot, through middleware's writer
		}
		problem.Write(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is over %d KiB", limit.Limit>>10))
		return
	}
	problem.Write(w, http.StatusBadRequest, "the body cannot be read: "+err.Error())
}

// refuseRequest answers with the problem that err is.
func (s *Service) refuseRequest(w http.ResponseWriter, r *http.Request, err error) {
	if refused, ok := errors.AsType[*wsconn.Refusal](err); ok {
		for name, values := range refused.Header {
			w.Header()[name] = append(w.Header()[name], values...) // middleware may have the connection close
		}
		problem.Write(w, refused.Status, refused.Detail)
		return
	}
	kind, detail := explain(err)
	switch kind.status {
	case http.StatusTooManyRequests:
		setRetryAfter(w, waitAfter(err))
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable:
		level, wait := slog.LevelWarn, retryLater
		switch {
		case errors.Is(err, errBusy), errors.Is(err, errReading), errors.Is(err, ErrBusy):
			level, wait = slog.LevelDebug, retryBusy()
		case errors.Is(err, connset.ErrFull), errors.Is(err, connset.ErrDraining):
			level = slog.LevelDebug // not a failure, and there may be very many
		case r.Context().Err() != nil && errors.Is(err, context.Canceled):
			level = slog.LevelDebug // the client has gone
		}
		s.cfg.logger.Log(r.Context(), level, "a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		setRetryAfter(w, wait)
	}
	problem.Write(w, kind.status, detail)
}

// waitAfter is how long a client should wait that was refused with err.
func waitAfter(err error) time.Duration {
	if passes, ok := errors.AsType[*later](err); ok {
		return passes.wait
	}
	return retryLater
}

func setRetryAfter(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
}
