package chat

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/reto10/chat/internal/account"
	"github.com/reto10/chat/internal/admission"
	"github.com/reto10/chat/internal/connset"
	"github.com/reto10/chat/internal/expiry"
	"github.com/reto10/chat/internal/latency"
	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/throttle"
	"github.com/reto10/chat/internal/wsconn"
	"github.com/reto10/chat/internal/wsframe"
)

const (
	// portTimeout bounds what a socket asks of a port, so that a command is
	// answered "unavailable" and does not hang.
	portTimeout = 5 * time.Second
	// closeTimeout is how long a close frame and the peer's answer may take.
	closeTimeout = 5 * time.Second
)

// Service is the chat: an [http.Handler] for its routes, and what Go code may do
// without a socket. Its methods are safe for concurrent use. Make one with [New]
// and end it with [Service.Shutdown].
type Service struct {
	cfg     *config
	auth    Authenticator
	login   LoginProvider // nil: no /login
	handler http.Handler

	logins   *loginLimits
	accounts *account.Table  // what is counted by user
	hasty    *account.Tokens // of users who connect too often

	counts     counters
	presence   *announcer
	conns      *connset.Set[*socket]
	expiries   *expiry.Queue[*socket]
	sockets    *wsconn.Server
	opening    *admission.Gate // of the sockets that are being opened
	reads      *sharedReads    // of what sockets missed
	pageReads  *admission.Gate // of the history, one step each
	readTurns  *admission.Gate // of these, for those that are not slow
	joinReads  *admission.Gate // likewise, for what commands missed
	pages      *admission.Gate // of the history that are being sent
	reading    *throttle.Meter // of history, in bytes by user
	readingAll *throttle.Meter // likewise, of all pages as one
}

// New makes a service that takes tokens from auth. When auth is a
// [LoginProvider], too, it has a /login.
func New(auth Authenticator, opts ...Option) (*Service, error) {
	if auth == nil {
		return nil, errors.New("chat: no Authenticator")
	}
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	announcer := newAnnouncer(cfg)
	if err := cfg.startRegistry(announcer.changed); err != nil {
		announcer.close()
		cfg.sparing.Close()
		return nil, err
	}
	// From here on nothing fails: what follows has goroutines.
	s := &Service{
		cfg:      cfg,
		presence: announcer,
		auth:     auth,
		logins:   newLoginLimits(),
		accounts: account.New(account.Limits{
			Sockets: cfg.socketsHere(), Connect: cfg.connectRate, Idle: throttleKeys,
		}),
		hasty: account.NewTokens(),
		sockets: &wsconn.Server{
			Subprotocol: subprotocol,
			ReadLimit:   int64(cfg.readLimit),
			TooFast:     int(CloseTooFast),
			Limits: wsconn.Limits{
				Backlog: cfg.backlog,
				Stall:   cfg.stall,
				Closing: closeTimeout,
				Slow:    wsframe.Close(int(CloseTooSlow), "too slow, resume"),
			},
			Pings: cfg.pings,
		},
		expiries: expiry.New[*socket](),
		conns:    connset.New[*socket](cfg.maxSockets, cfg.heartbeat, closeTimeout),
	}
	s.opening = admission.New(admission.Limits{
		Inside:    cfg.opening,
		InsideOf:  max(1, min(cfg.socketsPerUser, cfg.opening/openingShare)),
		Waiting:   waitingPlaces * cfg.opening,
		WaitingOf: cfg.socketsPerUser,
		Wait:      openingWait,
	}, s.conns.Stopped())
	s.pageReads = newReads(readsInAll, readsWaiting, pagesOfUser)
	s.readTurns = newReadTurns()
	s.joinReads = newReads(cfg.opening, waitingPlaces*cfg.opening, cfg.socketsPerUser)
	s.pages = newPageTurns()
	s.reading = newUserReading(cfg.socketsPerUser)
	s.readingAll = throttle.NewMeter(readRate, readBurst)
	s.counts.init()
	s.login, _ = auth.(LoginProvider)
	s.reads = newSharedReads(cfg.history)
	s.handler = s.routes()
	return s, nil
}

// startRegistry starts the registry and settles which history the service uses.
func (c *config) startRegistry(changed func(PresenceChange)) error {
	history, err := c.registry.Start(c.history, changed)
	switch {
	case err != nil:
		return fmt.Errorf("chat: starting the registry: %w", err)
	case history == nil:
		return errors.New("chat: the registry chose no history: pass one by WithHistory")
	}
	c.history = history
	return nil
}

// Broadcast publishes a message from Go code: Channel, Sender and Content are the
// caller's, what the policy says to users is not asked. It returns the message as
// stored, with its Position and Time, when it is handed on to everyone connected. The
// error wraps [ErrInvalid] for a name or a content that cannot be, [ErrTooLarge] for
// content over the limit, or [ErrUnavailable]: then it may have been stored all the
// same.
func (s *Service) Broadcast(ctx context.Context, m Message) (Message, error) {
	if err := s.check(m); err != nil {
		return Message{}, err
	}
	return s.store(ctx, m)
}

// store stores and publishes a message that check has accepted.
func (s *Service) store(ctx context.Context, m Message) (Message, error) {
	began := latency.Now()
	if err := s.cfg.registry.Check(ctx); err != nil {
		return Message{}, s.unavailable(portRegistry, "checking whether a message can be published", err)
	}
	m.Position = Position{}
	m.Time = time.Now().UTC().Truncate(time.Millisecond)
	stored, err := s.cfg.history.Append(ctx, m)
	if err == nil && len(stored) != 1 {
		err = fmt.Errorf("History.Append returned %d messages for 1", len(stored))
	}
	if err != nil {
		return Message{}, s.unavailable(portHistory, "storing a message", err)
	}
	m = stored[0]
	// It is stored, so it is published even if the caller gives up.
	ctx, cancel := lazyctx.WithTimeout(context.WithoutCancel(ctx), portTimeout)
	defer cancel()
	if err := s.cfg.registry.Publish(ctx, m); err != nil {
		return Message{}, s.unavailable(portRegistry, "publishing a message", err)
	}
	s.counts.published.Add(1)
	s.counts.publish.Observe(latency.Now() - began)
	return m, nil
}

// publish is a user's Broadcast.
func (s *Service) publish(ctx context.Context, who Identity, channel, content string) (Message, error) {
	m := Message{Channel: channel, Sender: who.User.Name, Content: content}
	if err := s.check(m); err != nil {
		return Message{}, err
	}
	if err := s.allow(s.cfg.policy.Publish(ctx, who, channel)); err != nil {
		return Message{}, err
	}
	return s.store(ctx, m)
}

// check validates what callers and clients set in a message, the content included. It is
// the only place that does.
func (s *Service) check(m Message) error {
	switch {
	case m.Channel != "" && !ValidChannel(m.Channel):
		return wrapf(ErrInvalid, "not a channel's name: %q", shorten(m.Channel))
	case m.Sender != "" && !ValidUsername(m.Sender):
		return wrapf(ErrInvalid, "not a sender's name: %q", shorten(m.Sender))
	case m.Content == "":
		return wrapf(ErrInvalid, "no content")
	case len(m.Content) > s.cfg.contentLimit:
		return wrapf(ErrTooLarge, "content is over %d bytes", s.cfg.contentLimit)
	case !utf8.ValidString(m.Content):
		return wrapf(ErrInvalid, "content is not UTF-8")
	case strings.ContainsRune(m.Content, 0):
		return wrapf(ErrInvalid, "content holds a NUL")
	}
	return nil
}

// identify asks the Authenticator whose a token is, and checks its answer.
func (s *Service) identify(ctx context.Context, token string) (Identity, error) {
	who, err := s.auth.Authenticate(ctx, token)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return Identity{}, err
	case err != nil:
		return Identity{}, s.unavailable(portAuthenticator, "checking a token", err)
	case who.Expires.IsZero():
		return Identity{}, s.unavailable(portAuthenticator, "checking a token", errors.New("the Authenticator does not say until when it holds"))
	case !ValidUsername(who.User.Name):
		return Identity{}, wrapf(ErrUnauthenticated, "the token names no valid user")
	case !who.Expires.Round(0).After(time.Now()):
		return Identity{}, wrapf(ErrUnauthenticated, "the token has expired")
	}
	if who.User.Role == "" {
		who.User.Role = RoleUser
	}
	// By the wall clock from here on: the other one stands still in a suspended machine.
	who.Expires = who.Expires.Round(0)
	return who, nil
}

// mayJoin decides whether a user may be in a channel and read its history.
func (s *Service) mayJoin(ctx context.Context, who Identity, channel string) error {
	switch {
	case channel == "" || channel == UserChannel(who.User.Name):
		return nil
	case !ValidChannel(channel):
		return wrapf(ErrInvalid, "not a channel's name: %q", shorten(channel))
	case strings.HasPrefix(channel, "@"):
		return wrapf(ErrForbidden, "another user's own channel")
	}
	return s.allow(s.cfg.policy.Join(ctx, who, channel))
}

// allow turns what a policy answered into one of the package's kinds.
func (s *Service) allow(err error) error {
	if err == nil || errors.Is(err, ErrForbidden) || errors.Is(err, ErrInvalid) {
		return err
	}
	return s.unavailable(portPolicy, "asking the policy", err)
}

// Connected lists who is in a channel on all nodes, sorted by name; "" lists
// everyone connected. The error wraps [ErrInvalid] for what is no channel's name, or
// [ErrUnavailable].
func (s *Service) Connected(ctx context.Context, channel string) ([]Presence, error) {
	if channel != "" && !ValidChannel(channel) {
		return nil, wrapf(ErrInvalid, "not a channel's name: %q", shorten(channel))
	}
	list, err := s.cfg.registry.Connected(ctx, channel)
	if err != nil {
		return nil, s.unavailable(portRegistry, "listing who is connected", err)
	}
	return list, nil
}

// Disconnect closes a user's sockets on all nodes with 4002 and returns how many
// those were, 0 for a user who is not connected. Their token holds as before. The
// error wraps [ErrInvalid] for what is no username, or [ErrUnavailable].
func (s *Service) Disconnect(ctx context.Context, username string) (int, error) {
	if !ValidUsername(username) {
		return 0, wrapf(ErrInvalid, "not a username: %q", shorten(username))
	}
	n, err := s.cfg.registry.CloseUser(ctx, username, 0, CloseDisconnected, "disconnected by an admin")
	if err != nil {
		return n, s.unavailable(portRegistry, "disconnecting a user", err)
	}
	return n, nil
}

// Draining reports whether Shutdown was called: no new socket is taken then.
func (s *Service) Draining() bool { return s.conns.Draining() }

// Shutdown ends the service gracefully. New sockets are refused with 503 from
// now on. Live ones get what was accepted for them and are closed with 1001. A socket
// that is still being sent what it missed is closed in the middle of that, and gets the
// rest when it resumes. The closing is spread over most of the time that ctx leaves, so
// that they do not all return at once. Shutdown returns nil when all is gone, or ctx's error, after cutting off what
// was left. Call it before [http.Server.Shutdown], which knows nothing of
// WebSockets.
func (s *Service) Shutdown(ctx context.Context) error {
	err := s.conns.Drain(ctx, func(c *socket) {
		_ = s.cfg.registry.Flush(ctx) // after an error the socket is closed all the same
		c.Close(CloseGoingAway, "the server is going away")
	})
	s.presence.close()
	s.sockets.Close()
	s.cfg.sparing.Close()
	if err != nil {
		return fmt.Errorf("chat: shutting down: %w", err)
	}
	return nil
}
