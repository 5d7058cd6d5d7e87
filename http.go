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
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reto10/chat/internal/connset"
	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/internal/wire"
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

// ConnectedHandler answers an admin's GET with who is connected, in the channel that
// ?channel= names or at all: {"count","users":[{"username","role","connections",
// "since"}]}.
func (s *Service) ConnectedHandler() http.Handler {
	return s.route(methods{http.MethodGet: s.serveConnected})
}

// MessagesHandler answers GET with a page of a channel's history, {"messages","more"}
// and, where some of it is gone, "gap"; POST of {"content","channel"} publishes as
// the token's user, and is answered with the message.
func (s *Service) MessagesHandler() http.Handler {
	m := methods{http.MethodGet: s.serveHistory, http.MethodPost: s.servePublish}
	if s.cfg.noHistory {
		delete(m, http.MethodGet)
	}
	return s.route(m)
}

// DisconnectHandler closes a user's sockets on an admin's POST, and answers with how
// many those were: {"closed"}. The pattern that it is mounted with has to have a
// {username}.
func (s *Service) DisconnectHandler() http.Handler {
	return s.route(methods{http.MethodPost: s.serveDisconnect})
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

// requestedChannels reads ?channel= and ?since=. An id that names no place in one
// of the socket's channels is one that is not known any more.
func (s *Service) requestedChannels(ctx context.Context, query url.Values, who Identity) (channels []string, resume resumption, err error) {
	for _, channel := range query["channel"] {
		if channel == "" || channel == UserChannel(who.User.Name) || slices.Contains(channels, channel) {
			continue
		}
		if len(channels) == s.cfg.channelsPerSocket {
			return nil, resume, wrapf(ErrInvalid, "a socket joins at most %d channels", s.cfg.channelsPerSocket)
		}
		if err := s.mayJoin(ctx, who, channel); err != nil {
			return nil, resume, err
		}
		channels = append(channels, strings.Clone(channel)) // it would keep the whole request
	}
	if len(query["since"]) > 0 {
		resume.from = make(map[string]Position)
	}
	for _, id := range query["since"] {
		channel, place, err := ParseID(id)
		if err != nil || channel != "" && channel != UserChannel(who.User.Name) && !slices.Contains(channels, channel) {
			resume.unknown = true
			continue
		}
		resume.from[channel] = place
	}
	return channels, resume, nil
}

func (s *Service) serveConnected(w http.ResponseWriter, r *http.Request) {
	type user struct {
		Username    string `json:"username"`
		Role        string `json:"role"`
		Connections int    `json:"connections"`
		Since       string `json:"since"`
	}
	query, err := readQuery(r, "channel")
	if err == nil {
		_, err = s.authenticateAdmin(r)
	}
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	list, err := s.Connected(r.Context(), query.Get("channel"))
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	users := make([]user, len(list))
	for i, p := range list {
		users[i] = user{p.User.Name, p.User.Role, p.Connections, wire.Time(p.Since)}
	}
	answer(w, http.StatusOK, struct {
		Count int    `json:"count"`
		Users []user `json:"users"`
	}{len(users), users})
}

func (s *Service) serveDisconnect(w http.ResponseWriter, r *http.Request) {
	_, err := readQuery(r)
	if err == nil {
		_, err = s.authenticateAdmin(r)
	}
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	n, err := s.Disconnect(r.Context(), r.PathValue("username"))
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	answer(w, http.StatusOK, struct {
		Closed int `json:"closed"`
	}{n})
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

// bearerToken finds a request's token: in the Authorization header (RFC 6750),
// else among the offered subprotocols, else in the query; "" when there is none.
func bearerToken(r *http.Request) string {
	for _, line := range r.Header.Values("Authorization") {
		if scheme, token, ok := strings.Cut(line, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offered := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(offered), "bearer."); ok {
				return token
			}
		}
	}
	return r.URL.Query().Get("token")
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
