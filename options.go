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

// warningsASecond is how many warnings with the same message are logged per second.
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

// Option configures [New]. New returns an error for an invalid option.
type Option func(*config) error

// PresenceAudience is which clients get user_joined and user_left.
type PresenceAudience int

const (
	PresenceToAll    PresenceAudience = iota // everyone in the channel
	PresenceToAdmins                         // the admins in the channel
	PresenceToNobody                         // no client; [Service.Connected] still works
)

type config struct {
	registry   Registry
	history    History // nil: the registry chooses
	noHistory  bool
	policy     Policy
	logger     *slog.Logger
	sparing    *sparinglog.Handler // handler of logger
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
	connectRate       account.Rate // a burst of 0: the default, from socketsPerUser
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
	if c.backlog < 8*c.contentLimit { // a byte of content takes up to six bytes in JSON
		return nil, fmt.Errorf("chat: WithBacklog(%d) is less than 8 times WithContentLimit(%d)", c.backlog, c.contentLimit)
	}
	if c.connectRate.PerSecond > 0 && c.connectRate.Burst == 0 {
		// Lets all sockets of a user reconnect four times in a row, for example after failures.
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

// socketsHere returns how many sockets of a user one node accepts, including those that
// open or close. With WithReplaceOldest there is room for replaced sockets that still
// close.
func (c *config) socketsHere() int {
	if !c.replaceOldest {
		return c.socketsPerUser
	}
	return c.socketsPerUser + max(c.socketsPerUser, 8)
}

// WithRegistry replaces the registry, by default a [MemoryRegistry]. A registry serves
// one Service.
func WithRegistry(r Registry) Option {
	return func(c *config) error { return notNil(&c.registry, "WithRegistry", r, r == nil) }
}

// WithHistory replaces the history. By default the registry chooses it: a
// [MemoryRegistry] uses a [MemoryHistory] with the default limits, and a registry for
// several nodes the history that the nodes share. [New] returns an error if the registry
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

// WithoutHistory turns off reading the history. GET /messages answers 405, and a client
// that reconnects gets no replay. A join with an id that this socket already received
// still answers "recovered": true if the socket received all later messages too: the
// replay is empty.
//
// The registry still chooses a history, which decides the order of messages. The history
// of a registry for several nodes keeps messages within its own limits.
func WithoutHistory() Option {
	return func(c *config) error { c.noHistory = true; return nil }
}

// WithPolicy replaces [DefaultPolicy].
func WithPolicy(p Policy) Option {
	return func(c *config) error { return notNil(&c.policy, "WithPolicy", p, p == nil) }
}

// WithLogger replaces [slog.Default]. The service logs failures of ports at Warn, panics
// of ports at Error, and the end of each socket at Debug. It logs at most ten warnings
// with the same message per second, then how many it left out. It never logs tokens or
// passwords.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error { return notNil(&c.logger, "WithLogger", l, l == nil) }
}

// WithOrigins allows browser pages of other origins than the service's own to
// open sockets and to call the HTTP routes (CORS): "https://app.example.com",
// "https://*.example.com" for any subdomain, or "*" for all pages. Write a host that is
// not ASCII as browsers send it, as xn--…. Requests without an Origin, which no browser
// page sends, are always allowed. By default only the service's own host is allowed.
// Several WithOrigins add up. An origin that no browser sends is an error.
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

// WithClientAddr sets how to find a client's address, without a port, for example behind
// a proxy. The service limits tries to log in by this address. The default is the host of
// [http.Request.RemoteAddr].
func WithClientAddr(fn func(*http.Request) string) Option {
	return func(c *config) error { return notNil(&c.clientAddr, "WithClientAddr", fn, fn == nil) }
}

// WithRequestScheme sets how to find the scheme of a request that a proxy forwarded:
// "https", "http", or "" if unknown. Proxies often send it in X-Forwarded-Proto. If fn
// returns "https", the service rejects pages with the origin http://host, and the other
// way round. The service does not call fn for requests that arrived over TLS. By default
// the scheme is unknown, and pages of the service's host may connect over both.
func WithRequestScheme(fn func(*http.Request) string) Option {
	return func(c *config) error { return notNil(&c.scheme, "WithRequestScheme", fn, fn == nil) }
}

// WithPresence sets who gets the announcements of joins and leaves. The default is
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

// WithPresenceWindow sets how long joins and leaves are batched before they are
// announced. A join and a leave of one user within the window cancel out. The window
// grows to at most four times d while many users join or leave. The default is 500 ms.
func WithPresenceWindow(d time.Duration) Option {
	return func(c *config) error { return positive(&c.presenceWindow, "WithPresenceWindow", d) }
}

// WithPresenceLimit sets up to how many users in a channel joins and leaves are announced
// to everyone there. Above it, only admins get them, because the number of announcements
// grows with the square of the users. The default is 100.
func WithPresenceLimit(users int) Option {
	return func(c *config) error { return positive(&c.presenceLimit, "WithPresenceLimit", users) }
}

// WithReadLimit limits a WebSocket message from a client, in bytes. The service closes
// the socket of a client that sends a longer one with 1009. The default is 32 KiB.
func WithReadLimit(bytes int) Option {
	return func(c *config) error { return positive(&c.readLimit, "WithReadLimit", bytes) }
}

// WithContentLimit limits the content of a message, in bytes. The service rejects longer
// content with "too_large" or 413. The default is 32 KiB.
func WithContentLimit(bytes int) Option {
	return func(c *config) error { return positive(&c.contentLimit, "WithContentLimit", bytes) }
}

// WithMaxSockets limits the sockets of this process. The service answers a further
// handshake with 503. The default is 100,000.
func WithMaxSockets(n int) Option {
	return func(c *config) error { return positive(&c.maxSockets, "WithMaxSockets", n) }
}

// WithOpening limits how many sockets of this process open at once, so that the clients
// of a failed node do not load the registry and the history all at once. A socket is
// opening from the upgrade until its replay is sent, but for at most one second after
// its welcome. One user has at most an eighth of them.
//
// Further handshakes wait up to ten seconds: at most 24 × n of all users, and of one user
// as many as [WithSocketsPerUser] allows. The service answers all others with 503. The
// default is 512.
func WithOpening(n int) Option {
	return func(c *config) error { return positive(&c.opening, "WithOpening", n) }
}

// WithSocketsPerUser limits the sockets of one user on all nodes, including those that
// open or close. The service answers a further handshake with 429 and Retry-After. The
// default is 16.
func WithSocketsPerUser(n int) Option {
	return func(c *config) error { return positive(&c.socketsPerUser, "WithSocketsPerUser", n) }
}

// WithReplaceOldest closes a user's oldest socket with 4004 if a new one exceeds
// [WithSocketsPerUser]. By default the new one is rejected. While old sockets are closing,
// one node has at most n + max(n, 8) sockets of a user, where n is the limit; it answers
// further handshakes with 429.
func WithReplaceOldest() Option {
	return func(c *config) error { c.replaceOldest = true; return nil }
}

// WithChannelsPerSocket limits the channels that one socket joins, not counting
// everyone's channel and the user channel. The default is 128.
func WithChannelsPerSocket(n int) Option {
	return func(c *config) error { return positive(&c.channelsPerSocket, "WithChannelsPerSocket", n) }
}

// WithCommandRate limits the commands of a non-admin, and the user's POST /messages, on
// all sockets of this node together: perSecond on average, burst at once. Reconnecting
// does not reset the limit. The service rejects a command over the limit with
// "rate_limited" and a POST with 429, and closes a socket that keeps sending with 4005.
//
// A socket's first joins are free: up to [WithChannelsPerSocket], minus the channels in
// its handshake. 0 per second means no limit. The default is 20 per second and a burst of
// 40.
func WithCommandRate(perSecond float64, burst int) Option {
	return func(c *config) error { return setRate(&c.commandRate, "WithCommandRate", perSecond, burst) }
}

// WithConnectRate limits how often one user connects to this node: perSecond handshakes
// on average, burst at once. The service answers a further handshake with 429 and
// Retry-After. Handshakes that it answers with 503 do not count. 0 per second means no
// limit. The default, one per second and a burst of 64, lets all sockets of a user
// reconnect four times in a row; it grows with [WithSocketsPerUser].
func WithConnectRate(perSecond float64, burst int) Option {
	return func(c *config) error { return setRate(&c.connectRate, "WithConnectRate", perSecond, burst) }
}

// WithAdminCommandRate is [WithCommandRate] for admins, who have no limit by default.
func WithAdminCommandRate(perSecond float64, burst int) Option {
	return func(c *config) error { return setRate(&c.adminCommandRate, "WithAdminCommandRate", perSecond, burst) }
}

// WithBacklog limits the bytes that wait for a slow socket; beyond it the service closes
// the socket with 4003. Missed messages that wait count, too: they are sent in pieces of
// 32 KiB, or of a quarter of the limit, each when the client has read most of the one
// before. A replay alone never closes the socket. The limit must be at least 8 times
// [WithContentLimit]. The default is 1 MiB.
func WithBacklog(bytes int) Option {
	return func(c *config) error { return positive(&c.backlog, "WithBacklog", bytes) }
}

// WithStallTimeout limits how long a client may take to read 64 KiB of its backlog, or of
// a page of the history. Then the service ends the connection. The default is 30 seconds.
func WithStallTimeout(d time.Duration) Option {
	return func(c *config) error { return positive(&c.stall, "WithStallTimeout", d) }
}

// WithHeartbeat sets the interval of heartbeats to idle sockets. They keep the connection
// open in proxies, and detect a dead peer within two intervals: on Linux by TCP
// acknowledgements, elsewhere and with [WithPings] by the answers to pings. The default
// is 25 seconds.
func WithHeartbeat(interval time.Duration) Option {
	return func(c *config) error { return positive(&c.heartbeat, "WithHeartbeat", interval) }
}

// WithPings makes every heartbeat a ping that the client itself must answer before the
// next one. Use it if a proxy acknowledges TCP data for clients that are gone. It costs
// more, since each answer wakes the socket's reader.
func WithPings() Option {
	return func(c *config) error { c.pings = true; return nil }
}

// assign sets the value of an option if it is valid, and otherwise returns the problem.
func assign[T any](to *T, v T, valid bool, option, problem string) error {
	if !valid {
		return fmt.Errorf("%s: %s", option, problem)
	}
	*to = v
	return nil
}

func notNil[T any](to *T, option string, v T, isNil bool) error {
	return assign(to, v, !isNil, option, "nil")
}

func positive[T int | time.Duration](to *T, option string, v T) error {
	return assign(to, v, v > 0, option, fmt.Sprintf("%v is not positive", v))
}

func setRate(to *account.Rate, option string, perSecond float64, burst int) error {
	valid := perSecond == 0 || perSecond > 0 && burst >= 1 // NaN is not
	return assign(to, account.Rate{PerSecond: perSecond, Burst: burst}, valid, option,
		fmt.Sprintf("perSecond %v and burst %d: want perSecond ≥ 0, and burst ≥ 1 unless perSecond is 0", perSecond, burst))
}
