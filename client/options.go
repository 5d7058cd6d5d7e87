package client

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Defaults of the options.
const (
	defaultMinBackoff = 500 * time.Millisecond
	defaultMaxBackoff = 30 * time.Second
	defaultMaxEvents  = 1024
	defaultMaxBytes   = 4 << 20
	defaultReadLimit  = 1 << 20
)

// Option configures [Dial] and [NewAPI]. Each option checks its argument.
type Option func(*config) error

// config does not change once the options are applied.
type config struct {
	base       string // the service's URL, without a slash at its end
	source     TokenSource
	fixed      bool // the source has only one token
	username   string
	password   string
	ways       int // how many ways to authenticate were given; must be one
	channels   []string
	since      []string
	http       *http.Client
	minBackoff time.Duration
	maxBackoff time.Duration
	logger     *slog.Logger
	maxEvents  int
	maxBytes   int
	readLimit  int64
}

func newConfig(address string, opts []Option) (config, error) {
	cfg := config{
		http:       http.DefaultClient,
		minBackoff: defaultMinBackoff, maxBackoff: defaultMaxBackoff,
		logger:    slog.New(slog.DiscardHandler),
		maxEvents: defaultMaxEvents, maxBytes: defaultMaxBytes, readLimit: defaultReadLimit,
	}
	var err error
	if cfg.base, err = parseBase(address); err != nil {
		return cfg, err
	}
	for _, opt := range opts {
		if opt == nil {
			return cfg, errors.New("client: an option is nil")
		}
		if err := opt(&cfg); err != nil {
			return cfg, fmt.Errorf("client: %w", err)
		}
	}
	switch {
	case cfg.ways == 0:
		return cfg, errors.New("client: WithLogin, WithToken or WithTokenSource is needed")
	case cfg.ways > 1:
		return cfg, errors.New("client: one of WithLogin, WithToken and WithTokenSource, not several")
	case len(cfg.since) > 2+len(cfg.channels):
		return cfg, fmt.Errorf("client: WithSince: %d ids for %d channels (everyone's channel, the user channel and those of WithChannels)",
			len(cfg.since), 2+len(cfg.channels))
	}
	return cfg, nil
}

// parseBase checks the service's URL. The error does not contain the URL, which may contain
// a password.
func parseBase(address string) (string, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return "", fmt.Errorf("client: not a URL: %w", err)
	case u.Scheme != "https" && u.Scheme != "http":
		return "", errors.New("client: the URL must begin with https:// or http://, as in https://localhost:8443")
	case u.Host == "" || u.Opaque != "":
		return "", errors.New("client: the URL names no host")
	case u.User != nil:
		return "", errors.New("client: the URL contains a user: use WithLogin")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("client: the URL must be that of the service, without a query or fragment")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// plainHTTP reports whether others on the network can read requests to a service: its URL
// is http:// and its host is not this machine.
func plainHTTP(base string) bool {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" {
		return false
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return !addr.Unmap().IsLoopback()
	}
	return host != "localhost" && !strings.HasSuffix(host, ".localhost")
}

// WithLogin logs in with a name and a password (POST /login) whenever the client needs a
// token.
func WithLogin(username, password string) Option {
	return func(c *config) error {
		if username == "" || password == "" {
			return errors.New("WithLogin: a username and a password are needed")
		}
		c.username, c.password = username, password
		c.ways++
		return nil
	}
}

// WithToken uses this token. The client ends with [ErrUnauthenticated] when the token
// expires or is rejected.
func WithToken(token string) Option {
	return func(c *config) error {
		if err := checkToken(token); err != nil {
			return fmt.Errorf("WithToken: %w", err)
		}
		c.source, c.fixed = fixedToken(token), true
		c.ways++
		return nil
	}
}

// WithTokenSource calls source whenever the client needs a token.
func WithTokenSource(source TokenSource) Option {
	return func(c *config) error {
		if source == nil {
			return errors.New("WithTokenSource: nil")
		}
		c.source = source
		c.ways++
		return nil
	}
}

// WithChannels joins channels from the start, in addition to everyone's channel and the user
// channel, which are always joined. The default is none.
func WithChannels(names ...string) Option {
	return func(c *config) error {
		for i, name := range names {
			if name == "" {
				return errors.New("WithChannels: a channel has no name")
			}
			if slices.Contains(names[:i], name) {
				return fmt.Errorf("WithChannels: %q is given twice", name)
			}
		}
		c.channels = slices.Clone(names)
		return nil
	}
}

// WithSince resumes where an earlier client ended. Pass the ids that [Client.Since] returned
// and, to [WithChannels], the names that [Client.Channels] returned.
//
// The ids are those of everyone's channel, of the user channel, then of the channels in
// their order. A channel whose id is "" or left out at the end starts with the messages
// that are published from now on, which is the default for all channels.
func WithSince(ids ...string) Option {
	return func(c *config) error {
		c.since = slices.Clone(ids)
		return nil
	}
}

// WithHTTPClient sets the client for HTTP requests and for the WebSocket handshake. Its
// transport determines TLS, proxies and dialing. Its Timeout, if any, bounds each request
// and each handshake in addition to this package's own limits. Redirects are never
// followed. The default is [http.DefaultClient].
func WithHTTPClient(h *http.Client) Option {
	return func(c *config) error {
		if h == nil {
			return errors.New("WithHTTPClient: nil")
		}
		c.http = h
		return nil
	}
}

// WithBackoff sets the wait before a reconnect: a random part of a time that starts at
// least and doubles with each attempt, up to most. It starts at least again after a
// connection that lasted 10 seconds. The defaults are 500 ms and 30 s.
func WithBackoff(least, most time.Duration) Option {
	return func(c *config) error {
		if least <= 0 || most < least {
			return fmt.Errorf("WithBackoff: %v and %v: the first must be positive, the second no less", least, most)
		}
		c.minBackoff, c.maxBackoff = least, most
		return nil
	}
}

// WithLogger sets a logger. Connections and their ends are logged at Info, problems at Warn,
// such as an http:// URL of another machine. Tokens, passwords and content are never logged.
// By default nothing is logged.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: nil")
		}
		c.logger = l
		return nil
	}
}

// WithEventLimit bounds the queue of [Client.Events]: the number of events, and the bytes of
// their content, names and ids. When the queue is full, the client stops reading for a few
// seconds. Then it drops events, and gets the dropped messages again once the consumer has
// emptied the queue. While the client fills gaps, it may hold up to twice as much.
// The defaults are 1024 events and 4 MiB.
func WithEventLimit(events, bytes int) Option {
	return func(c *config) error {
		if events < 1 || bytes < 1 {
			return fmt.Errorf("WithEventLimit: %d events and %d bytes: both must be positive", events, bytes)
		}
		c.maxEvents, c.maxBytes = events, bytes
		return nil
	}
}

// WithReadLimit bounds one frame from the server, in bytes. A longer frame ends the
// connection with [ErrProtocol]. The default is 1 MiB. For a server whose content limit
// exceeds 150 KiB, set six times that limit.
func WithReadLimit(bytes int64) Option {
	return func(c *config) error {
		if bytes < 1024 {
			return fmt.Errorf("WithReadLimit: %d bytes are less than 1024", bytes)
		}
		c.readLimit = bytes
		return nil
	}
}
