package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reto10/chat/internal/account"
	"github.com/reto10/chat/internal/connset"
	"github.com/reto10/chat/internal/problem"
	"github.com/reto10/chat/internal/wsconn"
)

const (
	// maxBody is the largest body of a request, in bytes.
	maxBody = 64 << 10
	// retryLater is the Retry-After of a rejected client.
	retryLater = 5 * time.Second
)

// ServeHTTP serves the routes of the protocol: POST /login, GET /ws/chat,
// GET /users/connected, GET and POST /messages and
// POST /users/{username}/disconnect. Mount it below a prefix with
// [http.StripPrefix]. Below "/chat" the socket is at /chat/ws/chat. To serve it at another
// path, mount [Service.SocketHandler] there.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// SocketHandler serves the WebSocket alone, for services with a login of their own. Mount
// it without a method in the pattern: it answers OPTIONS for CORS, and 405 for other
// methods.
func (s *Service) SocketHandler() http.Handler {
	return s.route(methods{http.MethodGet: s.serveSocket})
}

// routes dispatches by the exact path. It does not use [http.ServeMux], whose redirects lose a
// stripped prefix and repeat the query, which may contain a token.
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

// route dispatches by method and adds the CORS headers for allowed origins. It rejects a POST
// from a page of another origin; acceptSocket does so for the WebSocket handshake.
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
			problem.Write(w, http.StatusMethodNotAllowed, fmt.Sprintf("method %s is not allowed here: use %s", shorten(r.Method), allow))
			return
		}
		if r.Method == http.MethodPost {
			if err := s.checkPage(r); err != nil {
				s.rejectRequest(w, r, err)
				return
			}
		}
		serve(w, r)
	})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, http.StatusNotFound, fmt.Sprintf("no such route: %q", shorten(r.URL.Path)))
}

func (s *Service) serveSocket(w http.ResponseWriter, r *http.Request) {
	growStack()
	if err := s.acceptSocket(w, r); err != nil {
		s.counts.refused.add(whyRefused(err))
		s.rejectRequest(w, r, err)
	}
}

// growStack makes the goroutine's stack as large as opening a socket needs, 8 KiB. The
// goroutine of a new connection has less. Growing copies every frame, and there are the
// fewest of them now.
//
//go:noinline
func growStack() {
	var room [3 << 10]byte
	stackRoom(&room)
}

//go:noinline
func stackRoom(*[3 << 10]byte) {}

// acceptSocket upgrades the request to a WebSocket and starts its socket. An error means
// that the caller still has to answer the request.
func (s *Service) acceptSocket(w http.ResponseWriter, r *http.Request) (err error) {
	if !s.originAllowed(r) {
		return wrapf(ErrForbidden, "origin %q is not allowed", shorten(r.Header.Get("Origin")))
	}
	query, err := readQuery(r)
	if err != nil {
		return err
	}
	notUpgrade, token := wsconn.Check(r), bearerToken(r)
	if notUpgrade != nil && token == "" {
		return notUpgrade
	}
	if wait := s.rejectedTokens.Wait(token, time.Now()); wait > 0 {
		return &retryableError{errTooOften, wait} // rejected a moment ago: not authenticated again
	}
	who, err := s.authenticate(r)
	if err != nil {
		return err
	}
	held := holds{service: s, account: s.accounts.Hold(who.User.Name)}
	account := held.account
	defer held.release() // also after a panic, for example in a middleware's Hijack
	// All sockets of the user share one copy of the name. That of the token would keep the
	// token in memory.
	who.User.Name = account.Name()
	if notUpgrade != nil {
		// A browser hides the answer to a rejected handshake from the page. So the page
		// sends a plain GET to learn the reason.
		if err := s.wouldReject(account); err != nil {
			return err
		}
		return notUpgrade
	}
	if err := s.countHandshake(account, token); err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, ErrUnavailable) {
			account.Unconnect(time.Now())
		}
	}()
	channels, resume, err := s.requestedChannels(r.Context(), query, who)
	if err != nil {
		return err
	}
	// Rejects at once if the process is full or draining: waiting at the gate would not help.
	if err := s.sockets.Room(); err != nil {
		return wrapUnavailable("accepting a socket", err)
	}
	if wait, ok := account.Open(time.Now()); !ok {
		return tooManySockets(wait)
	}
	held.opened = true
	leave, err := s.enter(r.Context(), who.User.Name)
	if err != nil {
		return err
	}
	held.leave = leave
	// Reserve only after the gate: a waiting handshake must not use up a connection of
	// WithMaxSockets.
	if err := s.sockets.Reserve(); err != nil {
		return wrapUnavailable("accepting a socket", err)
	}
	held.reserved = true
	header := w.Header()
	conn, err := s.websockets.Accept(w, r)
	if err != nil {
		return err
	}
	c := newSocket(s, conn, who, account)
	c.rejectHandshake = s.lateRejection(conn, header, account)
	held = holds{} // start calls leave, and socket.Ended releases the others
	c.start(channels, resume, leave)
	if conn.Lost() {
		panic(http.ErrAbortHandler) // net/http closes the connection
	}
	return nil
}

// holds are what a handshake holds until its socket starts.
type holds struct {
	service  *Service
	account  *account.Account // nil: nothing is held
	opened   bool             // counted in the account
	leave    func()           // of the gate for opening sockets; nil: not entered
	reserved bool             // in Service.sockets
}

// release gives up what is held, the last first.
func (h *holds) release() {
	if h.reserved {
		h.service.sockets.Release()
	}
	if h.leave != nil {
		h.leave()
	}
	if h.opened {
		h.account.Closed()
	}
	if h.account != nil {
		h.account.Release()
	}
}

func (s *Service) authenticate(r *http.Request) (Identity, error) {
	token := bearerToken(r)
	if token == "" {
		return Identity{}, wrapf(ErrUnauthenticated, "no token: send it in the Authorization header, the subprotocol \"bearer.<token>\" or ?token=")
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
	_ = enc.Encode(body) // fails if the client has gone
}

// answerJSON begins an answer whose body is JSON.
func answerJSON(w http.ResponseWriter, status int) {
	h := w.Header()
	values := [...]string{"application/json", "no-store", "nosniff"} // one allocation, not three
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = values[0:1:1], values[1:2:2], values[2:3:3]
	w.WriteHeader(status)
}

const (
	// lingerTime and lingerBytes bound what is read of a body that is too large, after
	// the answer.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// linger sends an answer and gives the client time to read it. A connection that is
// closed while its client sends is reset, and the answer may be lost (RFC 9112, section
// 9.6). net/http waits by itself, but not after a 100 (Continue).
func linger(w http.ResponseWriter, body io.Reader) {
	conn := http.NewResponseController(w)
	_ = conn.Flush() // if a middleware hides this, the server sends the answer afterwards
	end := time.Now().Add(lingerTime)
	_ = conn.SetReadDeadline(end) // without it the server's own limit ends the reading
	if _, err := io.CopyN(io.Discard, body, lingerBytes); err == nil {
		<-time.After(time.Until(end)) // the client still sends
	}
}

// rejectBody answers a request whose body could not be read. body is all of it.
func rejectBody(w http.ResponseWriter, r *http.Request, body io.Reader, err error) {
	if limit, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // http.MaxBytesReader does not if middleware wraps the writer
		}
		problem.Write(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is over %d KiB", limit.Limit>>10))
		linger(w, body)
		return
	}
	problem.Write(w, http.StatusBadRequest, "the body cannot be read: "+err.Error())
}

// rejectRequest answers a request with err as a problem document (RFC 9457).
func (s *Service) rejectRequest(w http.ResponseWriter, r *http.Request, err error) {
	if refused, ok := errors.AsType[*wsconn.Refusal](err); ok {
		for name, values := range refused.Header {
			w.Header()[name] = append(w.Header()[name], values...) // keep a Connection header that middleware set
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
			level = slog.LevelDebug // expected under load, and frequent
		case r.Context().Err() != nil && errors.Is(err, context.Canceled):
			level = slog.LevelDebug // the client has gone
		}
		s.cfg.logger.Log(r.Context(), level, "a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		setRetryAfter(w, wait)
	}
	problem.Write(w, kind.status, detail)
}

// waitAfter returns the Retry-After for err.
func waitAfter(err error) time.Duration {
	if passes, ok := errors.AsType[*retryableError](err); ok {
		return passes.wait
	}
	return retryLater
}

func setRetryAfter(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
}

// readQuery parses a request's query. It rejects a query that [url.URL.Query] would parse
// in part, because the rest would be another request. The parameters in once, and token,
// may appear only once: two programs on the way could use different values. Unknown
// parameters are ignored. The errors wrap ErrInvalid and repeat nothing of the query,
// which may contain a token.
func readQuery(r *http.Request, once ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrapf(ErrInvalid, "the query is malformed: in a name or a value, write ; as %%3B and %% as %%25")
	}
	for _, name := range append(once, "token") {
		if len(query[name]) > 1 {
			return nil, wrapf(ErrInvalid, "the query has more than one %s", name)
		}
	}
	return query, nil
}

// bearerToken returns a request's token: from the Authorization header (RFC 6750), else
// from the offered subprotocols, else from the query; "" if there is none.
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

// requestedChannels reads the channels (?channel=) and the ids to resume from (?since=).
// An invalid id, or one of another channel, counts as unknown: the socket is not
// recovered.
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
		channels = append(channels, strings.Clone(channel)) // a substring would keep the whole request in memory
	}
	if len(query["since"]) > 0 {
		resume.from = make(map[string]Position)
	}
	for _, id := range query["since"] {
		channel, position, err := ParseID(id)
		if err != nil || channel != "" && channel != UserChannel(who.User.Name) && !slices.Contains(channels, channel) {
			resume.unknown = true
			continue
		}
		resume.from[channel] = position
	}
	return channels, resume, nil
}
