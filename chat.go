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
	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/throttle"
	"github.com/reto10/chat/internal/wsconn"
	"github.com/reto10/chat/internal/wsframe"
)

const (
	// portTimeout bounds a call of a port for a socket, or one that must outlive its
	// request. After it the client gets "unavailable". A command may need several calls.
	portTimeout = 5 * time.Second
	// closeTimeout bounds sending a close frame and waiting for the client's.
	closeTimeout = 5 * time.Second
)

// Service is a chat service. It is an [http.Handler] for the routes, and its methods let
// Go code publish, list users and disconnect them. Its methods are safe for concurrent
// use. [New] makes a Service and [Service.Shutdown] ends it.
type Service struct {
	cfg     *config
	auth    Authenticator
	login   LoginProvider // nil: no /login
	handler http.Handler

	logins         *loginLimits
	accounts       *account.Table  // limits by user
	rejectedTokens *account.Tokens // of users who connect too often: not authenticated again

	counts     counters
	presence   *announcer
	sockets    *connset.Set[*socket]  // live sockets
	expiries   *expiry.Queue[*socket] // by the end of their tokens
	websockets *wsconn.Server         // accepts connections
	opening    *admission.Gate        // sockets that are opening

	replayPages   *replayPages    // reads for replays
	joinReads     *admission.Gate // reads for join commands
	pages         *admission.Gate // answers of GET /messages that are being sent
	pageReads     *admission.Gate // reads for GET /messages
	fastPageReads *admission.Gate // those that have taken less than slowRead
	userReads     *throttle.Meter // bytes of history read, by user
	allPageReads  *throttle.Meter // bytes of history read for GET /messages, all users as one
}

// New returns a Service whose users auth authenticates. If auth is also a
// [LoginProvider], the service serves POST /login. New starts goroutines, which
// [Service.Shutdown] ends.
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
	// Nothing below may fail: an error would leak the goroutines that it starts.
	s := &Service{
		cfg:      cfg,
		presence: announcer,
		auth:     auth,
		logins:   newLoginLimits(),
		accounts: account.New(account.Limits{
			Sockets: cfg.socketsHere(), Connect: cfg.connectRate, Idle: throttleKeys,
		}),
		rejectedTokens: account.NewTokens(),
		websockets: &wsconn.Server{
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
		sockets:  connset.New[*socket](cfg.maxSockets, cfg.heartbeat, closeTimeout),
	}
	s.opening = admission.New(admission.Limits{
		Inside:    cfg.opening,
		InsideOf:  max(1, min(cfg.socketsPerUser, cfg.opening/openingShare)),
		Waiting:   waitingFactor * cfg.opening,
		WaitingOf: cfg.socketsPerUser,
		Wait:      openingWait,
	}, s.sockets.Stopped())
	s.pageReads = newReads(readsInAll, readsWaiting, pagesOfUser)
	s.fastPageReads = newReadTurns()
	s.joinReads = newReads(cfg.opening, waitingFactor*cfg.opening, cfg.socketsPerUser)
	s.pages = newPageTurns()
	s.userReads = newUserReads(cfg.socketsPerUser)
	s.allPageReads = throttle.NewMeter(readRate, readBurst)
	s.counts.init()
	s.login, _ = auth.(LoginProvider)
	s.replayPages = newReplayPages(cfg.history)
	s.handler = s.routes()
	return s, nil
}

// startRegistry starts the registry and sets the history that the service uses.
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

// Broadcast stores and publishes a message from Go code. The caller sets Channel, Sender
// and Content; the Policy does not apply. Broadcast returns the stored message with its
// Position and Time once the registry has taken it for delivery; clients may not have it
// yet. The error wraps [ErrInvalid] for an invalid channel, sender or content,
// [ErrTooLarge] for content over the limit, or [ErrUnavailable]: then the message may
// have been stored.
func (s *Service) Broadcast(ctx context.Context, m Message) (Message, error) {
	if err := s.check(m); err != nil {
		return Message{}, err
	}
	return s.store(ctx, m)
}

// publication is what publishing a message needs in memory, in one allocation. The ports may
// keep both, so it is not used again.
type publication struct {
	ctx lazyctx.Context // of Registry.Publish
	msg [1]Message      // the argument of History.Append
}

// store stores and publishes a message that check has accepted.
func (s *Service) store(ctx context.Context, m Message) (Message, error) {
	began := time.Now()
	if err := s.cfg.registry.Check(ctx); err != nil {
		return Message{}, s.unavailable(portRegistry, "checking whether a message can be published", err)
	}
	m.Position = Position{}
	m.Time = began.UTC().Truncate(time.Millisecond)
	p := &publication{msg: [1]Message{m}}
	stored, err := s.cfg.history.Append(ctx, p.msg[:]...)
	if err == nil && len(stored) != 1 {
		err = fmt.Errorf("History.Append returned %d messages for 1", len(stored))
	}
	if err != nil {
		return Message{}, s.unavailable(portHistory, "storing a message", err)
	}
	m = stored[0]
	// It is stored, so it is published even if the caller gives up.
	p.ctx.StartDetached(ctx, portTimeout)
	defer p.ctx.Cancel()
	if err := s.cfg.registry.Publish(&p.ctx, stored...); err != nil {
		return Message{}, s.unavailable(portRegistry, "publishing a message", err)
	}
	s.counts.publish.Observe(time.Since(began))
	return m, nil
}

// publishAs is Broadcast for a user: it asks the Policy.
func (s *Service) publishAs(ctx context.Context, who Identity, channel, content string) (Message, error) {
	m := Message{Channel: channel, Sender: who.User.Name, Content: content}
	if err := s.check(m); err != nil {
		return Message{}, err
	}
	if err := s.allow(s.cfg.policy.Publish(ctx, who, channel)); err != nil {
		return Message{}, err
	}
	return s.store(ctx, m)
}

// check validates the fields of a message that callers and clients set. Nothing else
// does.
func (s *Service) check(m Message) error {
	switch {
	case m.Channel != "" && !ValidChannel(m.Channel):
		return invalidChannel(m.Channel)
	case m.Sender != "" && !ValidUsername(m.Sender):
		return wrapf(ErrInvalid, "sender %q: want a username, see ValidUsername", shorten(m.Sender))
	case m.Content == "":
		return wrapf(ErrInvalid, "no content")
	case len(m.Content) > s.cfg.contentLimit:
		return wrapf(ErrTooLarge, "content is over %d bytes", s.cfg.contentLimit)
	case !utf8.ValidString(m.Content):
		return wrapf(ErrInvalid, "content is not UTF-8")
	case strings.ContainsRune(m.Content, 0):
		return wrapf(ErrInvalid, "content contains a NUL")
	}
	return nil
}

// invalidChannel returns the error for an invalid channel name.
func invalidChannel(name string) error {
	return wrapf(ErrInvalid, "channel name %q: want 1 to 128 of A-Z a-z 0-9 . _ : -, or @ and a username", shorten(name))
}

// identify authenticates a token and validates the Identity that the Authenticator
// returned.
func (s *Service) identify(ctx context.Context, token string) (Identity, error) {
	who, err := s.auth.Authenticate(ctx, token)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return Identity{}, err
	case err != nil:
		return Identity{}, s.unavailable(portAuthenticator, "checking a token", err)
	case who.Expires.IsZero():
		return Identity{}, s.unavailable(portAuthenticator, "checking a token", errors.New("the Authenticator returned an Identity without Expires"))
	case !ValidUsername(who.User.Name):
		return Identity{}, wrapf(ErrUnauthenticated, "the token names no valid user")
	case !who.Expires.Round(0).After(time.Now()):
		return Identity{}, wrapf(ErrUnauthenticated, "the token has expired")
	}
	if who.User.Role == "" {
		who.User.Role = RoleUser
	}
	// Round(0) drops the monotonic clock, which stops while the machine is suspended.
	who.Expires = who.Expires.Round(0)
	return who, nil
}

// mayJoin returns nil if a user may join a channel and read its history.
func (s *Service) mayJoin(ctx context.Context, who Identity, channel string) error {
	switch {
	case channel == "" || channel == UserChannel(who.User.Name):
		return nil
	case !ValidChannel(channel):
		return invalidChannel(channel)
	case strings.HasPrefix(channel, "@"):
		return wrapf(ErrForbidden, "%q is the channel of another user", shorten(channel))
	}
	return s.allow(s.cfg.policy.Join(ctx, who, channel))
}

// allow returns a policy's ErrForbidden or ErrInvalid as it is, and makes any other error
// ErrUnavailable.
func (s *Service) allow(err error) error {
	if err == nil || errors.Is(err, ErrForbidden) || errors.Is(err, ErrInvalid) {
		return err
	}
	return s.unavailable(portPolicy, "asking the policy", err)
}

// Connected lists the users in a channel on all nodes, sorted by name; "" lists all
// connected users. The error wraps [ErrInvalid] for an invalid channel name, or
// [ErrUnavailable].
func (s *Service) Connected(ctx context.Context, channel string) ([]Presence, error) {
	if channel != "" && !ValidChannel(channel) {
		return nil, invalidChannel(channel)
	}
	list, err := s.cfg.registry.Connected(ctx, channel)
	if err != nil {
		return nil, s.unavailable(portRegistry, "listing who is connected", err)
	}
	return list, nil
}

// Disconnect closes a user's sockets on all nodes with 4002 and returns how many it
// closed. The user's token stays valid. The error wraps [ErrInvalid] for an invalid
// username, or [ErrUnavailable].
func (s *Service) Disconnect(ctx context.Context, username string) (int, error) {
	if !ValidUsername(username) {
		return 0, wrapf(ErrInvalid, "username %q: want 1 to 128 bytes of printable UTF-8", shorten(username))
	}
	n, err := s.cfg.registry.CloseUser(ctx, username, 0, CloseDisconnected, "disconnected by an admin")
	if err != nil {
		return n, s.unavailable(portRegistry, "disconnecting a user", err)
	}
	return n, nil
}

// Draining reports whether Shutdown was called. The service then rejects new sockets.
func (s *Service) Draining() bool { return s.sockets.Draining() }

// Shutdown ends the service gracefully. It answers new handshakes with 503. It delivers
// published messages to each live socket, then closes it with 1001. It ends replays
// early; the client gets the rest when it resumes. Shutdown spreads the closing over most
// of the time until ctx's deadline, so that clients do not reconnect all at once.
//
// Shutdown returns nil when all sockets have ended. If ctx ends first, it kills the
// remaining sockets and returns ctx's error. Call it before [http.Server.Shutdown], which
// does not know WebSockets.
func (s *Service) Shutdown(ctx context.Context) error {
	err := s.sockets.Drain(ctx, func(c *socket) {
		_ = s.cfg.registry.Flush(ctx) // after an error the socket is closed all the same
		c.Close(CloseGoingAway, "the server is going away")
	})
	s.presence.close()
	s.replayPages.close()
	s.websockets.Close()
	s.cfg.sparing.Close()
	if err != nil {
		return fmt.Errorf("chat: shutting down: %w", err)
	}
	return nil
}
