package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/wire"
)

const (
	// requestTime bounds a request, up to the last byte of the answer.
	requestTime = 30 * time.Second
	// maxAnswer bounds an answer's body: a page of messages has about 1 MiB of content,
	// and JSON may make that six times as long.
	maxAnswer = 16 << 20
	// maxProblem bounds the body of an answer that rejects the request.
	maxProblem = 64 << 10
)

// API calls the HTTP routes of a service, without a socket. Its methods are safe for
// concurrent use. Each ends with its context, after 30 seconds at the latest, and
// returns a [*StatusError] if the server rejects the request.
type API struct {
	cfg         config
	http        *http.Client // follows no redirect: another host would get the token
	credentials *credentials
}

// NewAPI returns an [API] for programs that need no socket. address is where the service
// is mounted, such as "https://localhost:8443" or "https://example.com/chat". NewAPI sends
// nothing yet. Options that concern the socket have no effect.
func NewAPI(address string, opts ...Option) (*API, error) {
	cfg, err := newConfig(address, opts)
	if err != nil {
		return nil, err
	}
	h := *cfg.http
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := &API{cfg: cfg, http: &h}
	if cfg.source == nil {
		cfg.source = TokenSourceFunc(a.login)
	}
	a.credentials = newCredentials(cfg.source, cfg.fixed)
	if plainHTTP(cfg.base) {
		cfg.logger.Warn("the URL begins with http://: others on the network can read the credentials", "url", cfg.base)
	}
	return a, nil
}

// Presence is one connected user, in the list that [API.Connected] returns.
type Presence struct {
	User        string    // the name
	Role        string    // "admin" or any other
	Connections int       // open sockets, at least 1
	Since       time.Time // when the first of these sockets connected, UTC
}

// Connected lists the connected users, sorted by name. With a channel it lists only the
// users in that channel. The caller must be an admin.
func (a *API) Connected(ctx context.Context, channel string) ([]Presence, error) {
	var answer struct {
		Users []struct {
			Username    string    `json:"username"`
			Role        string    `json:"role"`
			Connections int       `json:"connections"`
			Since       time.Time `json:"since"`
		} `json:"users"`
	}
	query := url.Values{}
	if channel != "" {
		query.Set("channel", channel)
	}
	if err := a.call(ctx, http.MethodGet, "/users/connected", query, nil, &answer); err != nil {
		return nil, fmt.Errorf("listing connected users: %w", err)
	}
	users := make([]Presence, len(answer.Users))
	for i, u := range answer.Users {
		users[i] = Presence{u.Username, u.Role, u.Connections, u.Since}
	}
	return users, nil
}

// Disconnect closes all sockets of a user with code 4002 and returns how many it closed.
// The caller must be an admin.
func (a *API) Disconnect(ctx context.Context, username string) (closed int, err error) {
	if username == "" {
		return 0, fmt.Errorf("disconnecting a user: %w: the name is empty", ErrInvalid)
	}
	var answer struct {
		Closed int `json:"closed"`
	}
	if err := a.call(ctx, http.MethodPost, "/users/"+url.PathEscape(username)+"/disconnect", nil, nil, &answer); err != nil {
		return 0, fmt.Errorf("disconnecting a user: %w", err)
	}
	return answer.Closed, nil
}

// Query selects messages in the history of a channel. At most one of After, Before and
// Newest may be set; with none of them, the oldest messages are selected.
type Query struct {
	Channel string // "" is everyone's channel, or the channel of the id in After or Before
	After   string // an id: the messages that follow it
	Before  string // an id: the messages just before it
	Newest  bool   // the newest messages
	Limit   int    // the most messages to return; 0 is the server's default, 100
}

// Page is a part of a channel's history.
type Page struct {
	Messages []Message // oldest first
	More     bool      // the history has more messages in the direction of the query
	Gap      bool      // messages just before these (with Before: just after) are no longer kept
}

// Messages reads the history of a channel that the user may join. A server without a
// history answers with status 405.
func (a *API) Messages(ctx context.Context, q Query) (Page, error) {
	const doing = "reading messages"
	query := url.Values{}
	given := 0
	set := func(name, value string, ok bool) {
		if ok {
			query.Set(name, value)
			given++
		}
	}
	set("after", q.After, q.After != "")
	set("before", q.Before, q.Before != "")
	set("before", "", q.Newest)
	if given > 1 {
		return Page{}, fmt.Errorf("%s: %w: After, Before and Newest exclude each other", doing, ErrInvalid)
	}
	if q.Limit < 0 {
		return Page{}, fmt.Errorf("%s: %w: the limit is negative", doing, ErrInvalid)
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Channel != "" {
		query.Set("channel", q.Channel)
	}
	var answer struct {
		Messages []wire.Message `json:"messages"`
		More     bool           `json:"more"`
		Gap      bool           `json:"gap"`
	}
	if err := a.call(ctx, http.MethodGet, "/messages", query, nil, &answer); err != nil {
		return Page{}, fmt.Errorf("%s: %w", doing, err)
	}
	page := Page{Messages: make([]Message, len(answer.Messages)), More: answer.More, Gap: answer.Gap}
	for i, m := range answer.Messages {
		var err error
		if page.Messages[i], err = newMessage(m); err != nil {
			return Page{}, fmt.Errorf("%s: %w", doing, err)
		}
	}
	return page, nil
}

// Publish sends a message without a socket (POST /messages) and returns the stored
// message. It goes to everyone's channel, or to the channel that [To] names. By default
// only admins may publish. After an error that wraps [ErrUnconfirmed], the message may
// have been stored.
func (a *API) Publish(ctx context.Context, content string, opts ...BroadcastOption) (Message, error) {
	const doing = "publishing"
	b, err := newBroadcast(content, opts)
	if err != nil {
		return Message{}, fmt.Errorf("%s: %w", doing, err)
	}
	body := struct {
		Content string `json:"content"`
		Channel string `json:"channel,omitempty"`
	}{b.content, b.channel}
	var answer wire.Message
	err = a.call(ctx, http.MethodPost, "/messages", nil, body, &answer)
	var m Message
	if err == nil {
		m, err = newMessage(answer)
	}
	if errors.Is(err, errNoAnswer) || errors.Is(err, ErrProtocol) {
		err = fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	if err != nil {
		return Message{}, fmt.Errorf("%s: %w", doing, err)
	}
	return m, nil
}

// login gets a token for the name and password of [WithLogin].
func (a *API) login(ctx context.Context) (string, error) {
	credentials := map[string]string{"username": a.cfg.username, "password": a.cfg.password}
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := a.send(ctx, http.MethodPost, "/login", nil, "", credentials, &answer); err != nil {
		return "", fmt.Errorf("logging in as %q: %w", printable(a.cfg.username), err)
	}
	return answer.Token, nil
}

// call sends a request with a token, and again with a new token if the server rejects
// the first.
func (a *API) call(ctx context.Context, method, path string, query url.Values, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	return a.credentials.with(ctx, func(token string) error {
		return a.send(ctx, method, path, query, token, body, answer)
	})
}

// errNoAnswer means that no answer came; the server may have carried the request out.
var errNoAnswer = errors.New("no answer")

// send sends one request and reads its answer as JSON into answer.
func (a *API) send(ctx context.Context, method, path string, query url.Values, token string, body, answer any) error {
	address := a.cfg.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return fmt.Errorf("%w: not an address", ErrInvalid)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	var connected, failed atomic.Bool // set by hooks, which may run after Do returns
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:          func(httptrace.GotConnInfo) { connected.Store(true) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { failed.Store(err != nil) },
	}))
	resp, err := a.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the address, which may be long
		}
		dial, ok := errors.AsType[*net.OpError](err)
		if ok && dial.Op == "dial" || failed.Load() && !connected.Load() {
			return fmt.Errorf("connecting to %s: %w", a.cfg.base, err)
		}
		return fmt.Errorf("asking %s: %w: %w", a.cfg.base, errNoAnswer, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // a partial body is fine
		return newStatusError(resp.StatusCode, resp.Header, text)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer of %s: %w: %w", a.cfg.base, errNoAnswer, err)
	case len(text) > maxAnswer:
		return fmt.Errorf("%w: an answer of over %d bytes", ErrProtocol, maxAnswer)
	case json.Unmarshal(text, answer) != nil:
		return fmt.Errorf("%w: the answer of %s is not one of a chat service", ErrProtocol, a.cfg.base)
	}
	return nil
}

// newStatusError converts an answer that rejects a request.
func newStatusError(status int, header http.Header, body []byte) *StatusError {
	e := &StatusError{Status: status, RetryAfter: retryAfter(header)}
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	var problem struct {
		Detail string `json:"detail"`
	}
	switch {
	case kind == "application/problem+json" && json.Unmarshal(body, &problem) == nil:
		e.Detail = printable(problem.Detail)
	case status >= 300 && status <= 399:
		// The query is left out: it may contain a secret.
		if to, err := url.Parse(header.Get("Location")); err == nil && to.Host != "" {
			e.Detail = printable("redirected to " + to.Scheme + "://" + to.Host + to.EscapedPath() + ", which is not followed")
		}
	}
	return e
}

// retryAfter reads Retry-After (RFC 9110 section 10.2.3): seconds or a date.
func retryAfter(header http.Header) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Status == status
}
