package chat

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/reto10/chat/internal/account"
	"github.com/reto10/chat/internal/sparinglog"
)

// warningsASecond is how many warnings with the same message are logged a second.
const warningsASecond = 10

// Defaults of the options.
const (
	defaultReadLimit         = 32 << 10         // WithReadLimit
	defaultContentLimit      = 32 << 10         // WithContentLimit
	defaultMaxSockets        = 100_000          // WithMaxSockets
	defaultOpening           = 512              // WithOpening
	defaultSocketsPerUser    = 16               // WithSocketsPerUser
	defaultChannelsPerSocket = 128              // WithChannelsPerSocket
	defaultCommandRate       = 20               // WithCommandRate
	defaultCommandBurst      = 40               // WithCommandRate
	defaultConnectRate       = 1                // WithConnectRate
	defaultConnectBurst      = 64               // WithConnectRate
	defaultBacklog           = 1 << 20          // WithBacklog
	defaultStallTimeout      = 30 * time.Second // WithStallTimeout
	defaultHeartbeat         = 25 * time.Second // WithHeartbeat
	defaultPresenceWindow    = 500 * time.Millisecond
	defaultPresenceLimit     = 100 // WithPresenceLimit
)

// Option changes a default of [New]. One that makes no sense is New's error.
type Option func(*config) error

// PresenceAudience is who gets user_joined and user_left.
type PresenceAudience int

const (
	PresenceToAll    PresenceAudience = iota // everyone in the channel
	PresenceToAdmins                         // the admins in the channel
	PresenceToNobody                         // nobody is told; lists of who is connected go on
)

type config struct {
	registry   Registry
	history    History // nil: the registry chooses
	noHistory  bool
	policy     Policy
	logger     *slog.Logger
	sparing    *sparinglog.Handler // of the logger
	origins    allowedOrigins
	clientAddr func(*http.Request) string
	scheme     func(*http.Request) string

	presence       PresenceAudience
	presenceWindow time.Duration
	presenceLimit  int

	readLimit         int
	contentLimit      int
	maxSockets        int
	opening           int
	socketsPerUser    int
	replaceOldest     bool
	channelsPerSocket int
	commandRate       account.Rate
	adminCommandRate  account.Rate
	connectRate       account.Rate // a burst of 0: both follow from socketsPerUser
	backlog           int
	stall             time.Duration
	heartbeat         time.Duration
	pings             bool
}

func newConfig(opts []Option) (*config, error) {
	c := &config{
		policy:            DefaultPolicy{},
		logger:            slog.Default(),
		clientAddr:        remoteHost,
		scheme:            func(*http.Request) string { return "" },
		presenceWindow:    defaultPresenceWindow,
		presenceLimit:     defaultPresenceLimit,
		readLimit:         defaultReadLimit,
		contentLimit:      defaultContentLimit,
		maxSockets:        defaultMaxSockets,
		opening:           defaultOpening,
		socketsPerUser:    defaultSocketsPerUser,
		channelsPerSocket: defaultChannelsPerSocket,
		commandRate:       account.Rate{PerSecond: defaultCommandRate, Burst: defaultCommandBurst},
		connectRate:       account.Rate{PerSecond: defaultConnectRate},
		backlog:           defaultBacklog,
		stall:             defaultStallTimeout,
		heartbeat:         defaultHeartbeat,
	}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("chat: an Option is nil")
		}
		if err := opt(c); err != nil {
			return nil, fmt.Errorf("chat: %w", err)
		}
	}
	if c.noHistory && c.history != nil {
		return nil, errors.New("chat: WithHistory and WithoutHistory exclude each other")
	}
	if c.backlog < 8*c.contentLimit { // JSON can make six bytes of one
		return nil, fmt.Errorf("chat: WithBacklog(%d) is less than 8 times WithContentLimit(%d)", c.backlog, c.contentLimit)
	}
	if c.connectRate.PerSecond > 0 && c.connectRate.Burst == 0 {
		// All sockets of a user may reconnect some times in a row, as after failures.
		c.connectRate.PerSecond = max(defaultConnectRate, float64(c.socketsPerUser)*defaultConnectRate/defaultSocketsPerUser)
		c.connectRate.Burst = max(defaultConnectBurst, c.socketsPerUser*(defaultConnectBurst/defaultSocketsPerUser))
	}
	c.sparing = sparinglog.NewHandler(c.logger.Handler(), warningsASecond)
	c.logger = slog.New(c.sparing)
	if c.registry == nil {
		c.registry = NewMemoryRegistry()
		if c.noHistory {
			c.history = NewMemoryHistory(MemoryLimits{Count: 256}) // for the order of messages
		}
	}
	return c, nil
}

// socketsHere is how many sockets of a user one node has at the most, in whatever state.
// Where the oldest is replaced it takes a while to go.
func (c *config) socketsHere() int {
	if !c.replaceOldest {
		return c.socketsPerUser
	}
	return c.socketsPerUser + max(c.socketsPerUser, 8)
}

// WithRegistry replaces the registry, by default a [MemoryRegistry]. A registry serves
// one Service.
func WithRegistry(r Registry) Option {
	return func(c *config) error {
		if r == nil {
			return errors.New("WithRegistry: nil")
		}
		c.registry = r
		return nil
	}
}

// WithHistory replaces the history. By default the registry chooses it: a
// [MemoryRegistry] takes a [MemoryHistory] within its default limits, a registry for
// several nodes the history that they share. [New] returns an error when the registry
// cannot work with the history.
func WithHistory(h History) Option {
	return func(c *config) error {
		if h == nil {
			return errors.New("WithHistory: nil (WithoutHistory turns it off)")
		}
		c.history = h
		return nil
	}
}

// WithoutHistory serves no history: GET /messages is not allowed (405), and a client
// that reconnects recovers nothing. A socket that joins a channel again, with an id
// since which everything came on that socket, is still told that it is recovered: no
// history is needed for that.
//
// The order of messages still comes from a history, the one that the registry chooses.
// With a registry for several nodes that is their shared one, which keeps messages
// within its own limits.
func WithoutHistory() Option {
	return func(c *config) error {
		c.noHistory = true
		return nil
	}
}

// WithPolicy replaces [DefaultPolicy].
func WithPolicy(p Policy) Option {
	return func(c *config) error {
		if p == nil {
			return errors.New("WithPolicy: nil")
		}
		c.policy = p
		return nil
	}
}

// WithLogger replaces [slog.Default]. It is told at Warn what failed behind the
// service, at Error of a port that panicked, at Debug of sockets that end. Of
// warnings with the same message it gets ten a second, and how many were left out.
// Tokens and passwords are never logged.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: nil")
		}
		c.logger = l
		return nil
	}
}

// WithOrigins allows browser pages of other origins than the service's own to
// open sockets and to call the HTTP routes (CORS): "https://app.example.com",
// "https://*.example.com" for any subdomain, or "*" for everyone's pages. A host that
// is not ASCII is written as browsers send it, as xn--…. Requests without an Origin,
// which no browser page sends, are always allowed. By default it is the service's own
// host alone. Given again it adds. An origin that no browser would send is an error.
func WithOrigins(origins ...string) Option {
	return func(c *config) error {
		for _, o := range origins {
			if err := c.origins.add(o); err != nil {
				return fmt.Errorf("WithOrigins: %q: %w", o, err)
			}
		}
		return nil
	}
}

// WithClientAddr says whom a request comes from where that is not the peer of
// the connection, as behind a proxy: an address without a port. Tries to log in are
// counted by it. The default is the host of [http.Request.RemoteAddr].
func WithClientAddr(fn func(*http.Request) string) Option {
	return func(c *config) error {
		if fn == nil {
			return errors.New("WithClientAddr: nil")
		}
		c.clientAddr = fn
		return nil
	}
}

// WithRequestScheme says how a request came to a proxy that TLS ends at, "https" or
// "http", and "" where that is not known: often it is in X-Forwarded-Proto. A page that
// came over http is not of the origin of a service that is reached over https, and may
// not connect. It is not asked about requests that came to this program over TLS. By
// default it is not known, and pages of the service's host may connect either way.
func WithRequestScheme(fn func(*http.Request) string) Option {
	return func(c *config) error {
		if fn == nil {
			return errors.New("WithRequestScheme: nil")
		}
		c.scheme = fn
		return nil
	}
}

// WithPresence says who is told of comings and goings. The default is
// [PresenceToAll].
func WithPresence(to PresenceAudience) Option {
	return func(c *config) error {
		if to < PresenceToAll || to > PresenceToNobody {
			return fmt.Errorf("WithPresence: unknown audience %d", to)
		}
		c.presence = to
		return nil
	}
}

// WithPresenceWindow is how long comings and goings are gathered before they are
// told; one that is undone within it is not. While very many come it is drawn out
// to four times this. The default is 500 ms.
func WithPresenceWindow(d time.Duration) Option {
	return func(c *config) error { return positive(&c.presenceWindow, "WithPresenceWindow", d) }
}

// WithPresenceLimit is the number of users in a channel above which only admins
// are told of comings and goings: what is told to all grows with its square. The
// default is 100.
func WithPresenceLimit(users int) Option {
	return func(c *config) error { return positive(&c.presenceLimit, "WithPresenceLimit", users) }
}

// WithReadLimit bounds one frame's message from a client, in bytes. A longer one
// closes the socket with 1009. The default is 32 KiB.
func WithReadLimit(bytes int) Option {
	return func(c *config) error { return positive(&c.readLimit, "WithReadLimit", bytes) }
}

// WithContentLimit bounds a message's content, in bytes. A longer one is refused
// with "too_large" or 413. The default is 32 KiB.
func WithContentLimit(bytes int) Option {
	return func(c *config) error { return positive(&c.contentLimit, "WithContentLimit", bytes) }
}

// WithMaxSockets bounds the sockets of this process. One more is answered 503. The
// default is 100,000.
func WithMaxSockets(n int) Option {
	return func(c *config) error { return positive(&c.maxSockets, "WithMaxSockets", n) }
}

// WithOpening bounds the sockets of this process that are being opened at once:
// from the upgrade until the socket has what it missed, or for a second after its
// welcome where its peer reads slowly. Others wait for their turn before the upgrade,
// for ten seconds at the most; then they are answered 503. One user's sockets take an
// eighth of these at the most. At most 24 times as many wait, and of one user as many
// as [WithSocketsPerUser] allows; any more are answered 503 at once. So the clients of a node that died do not ask the registry and the
// history for everything at once. The default is 512.
func WithOpening(n int) Option {
	return func(c *config) error { return positive(&c.opening, "WithOpening", n) }
}

// WithSocketsPerUser bounds the sockets of one user on all nodes, those that are being
// opened or closed included. One more is answered 429 before the upgrade, with
// Retry-After. The default is 16.
func WithSocketsPerUser(n int) Option {
	return func(c *config) error { return positive(&c.socketsPerUser, "WithSocketsPerUser", n) }
}

// WithReplaceOldest closes a user's oldest socket with 4004 when there are too many,
// and takes the new one. By default the new one is refused. One node has twice as many
// of a user, or 8 more if that is more, while the oldest are being closed; any more are
// answered 429.
func WithReplaceOldest() Option {
	return func(c *config) error {
		c.replaceOldest = true
		return nil
	}
}

// WithChannelsPerSocket bounds the channels that one socket joins beside
// everyone's and its user's own. The default is 128.
func WithChannelsPerSocket(n int) Option {
	return func(c *config) error { return positive(&c.channelsPerSocket, "WithChannelsPerSocket", n) }
}

// WithCommandRate bounds the commands of a user who is no admin, on all sockets of this
// node together, and POST /messages with them: so many a second, after a burst. It holds
// across reconnects. One more command is refused with "rate_limited", and a socket that
// goes on regardless is closed with 4005; one more POST is answered 429. Of each socket's
// joins as many are free as a handshake could have named channels, and did not, see
// [WithChannelsPerSocket]. 0 a second is no limit. The default is
// 20 a second after a burst of 40.
func WithCommandRate(perSecond float64, burst int) Option {
	return func(c *config) error { return setRate(&c.commandRate, "WithCommandRate", perSecond, burst) }
}

// WithConnectRate bounds how often one user connects to this node: so many handshakes a
// second, after a burst. One more is answered 429 before the upgrade, with Retry-After.
// Handshakes that are answered 503 do not count. 0 a second is no limit. The default,
// one a second after a burst of 64, lets all sockets of a user reconnect four times in a
// row; it grows with [WithSocketsPerUser].
func WithConnectRate(perSecond float64, burst int) Option {
	return func(c *config) error { return setRate(&c.connectRate, "WithConnectRate", perSecond, burst) }
}

// WithAdminCommandRate is WithCommandRate for admins, who have no limit by default.
func WithAdminCommandRate(perSecond float64, burst int) Option {
	return func(c *config) error { return setRate(&c.adminCommandRate, "WithAdminCommandRate", perSecond, burst) }
}

// WithBacklog bounds the bytes that wait for a socket whose peer does not read.
// Past it the socket is closed with 4003. It holds at least 8 messages of the
// content limit. The default is 1 MiB.
func WithBacklog(bytes int) Option {
	return func(c *config) error { return positive(&c.backlog, "WithBacklog", bytes) }
}

// WithStallTimeout bounds how long a peer may take to read 64 KiB of its backlog, or of
// a page of the history; then it is cut off. The default is 30 seconds.
func WithStallTimeout(d time.Duration) Option {
	return func(c *config) error { return positive(&c.stall, "WithStallTimeout", d) }
}

// WithHeartbeat is how often something is sent to a socket that has nothing else
// to get, so that proxies keep it open and a peer that is gone is noticed: within
// twice this time. On Linux the peer's kernel is asked, by TCP; elsewhere, and
// with [WithPings], the peer itself. The default is 25 seconds.
func WithHeartbeat(interval time.Duration) Option {
	return func(c *config) error { return positive(&c.heartbeat, "WithHeartbeat", interval) }
}

// WithPings makes heartbeats pings, which the application at the other end has to
// answer before the next, on every system. It costs more: every socket is woken
// by each answer. Use it where a proxy would answer in the peer's stead.
func WithPings() Option {
	return func(c *config) error {
		c.pings = true
		return nil
	}
}

func positive[T int | time.Duration](to *T, option string, v T) error {
	if v <= 0 {
		return fmt.Errorf("%s: %v is not positive", option, v)
	}
	*to = v
	return nil
}

func setRate(to *account.Rate, option string, perSecond float64, burst int) error {
	if perSecond != 0 && (!(perSecond > 0) || burst < 1) {
		return fmt.Errorf("%s: %v a second with bursts of %d", option, perSecond, burst)
	}
	*to = account.Rate{PerSecond: perSecond, Burst: burst}
	return nil
}
