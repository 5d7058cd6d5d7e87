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

// Option changes how [Dial] and [NewAPI] set a client up. Each checks its argument.
type Option func(*config) error

// config is read only once the options have been applied.
type config struct {
	base       string // the service's URL, without a slash at its end
	source     TokenSource
	fixed      bool // the source has one token and no other
	username   string
	password   string
	ways       int // to authenticate that were given
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
		return cfg, fmt.Errorf("client: WithSince: %d ids for %d channels: everyone's, one's own and those of WithChannels",
			len(cfg.since), 2+len(cfg.channels))
	}
	return cfg, nil
}

// parseBase checks the service's URL. What is wrong with it is said without
// repeating it: there may be a password in it.
func parseBase(address string) (string, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return "", fmt.Errorf("client: not a URL: %w", err)
	case u.Scheme != "https" && u.Scheme != "http":
		return "", errors.New("client: the URL has to begin with https:// or http://, as in https://localhost:8443")
	case u.Host == "" || u.Opaque != "":
		return "", errors.New("client: the URL names no host")
	case u.User != nil:
		return "", errors.New("client: the URL holds a user: that is for WithLogin")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("client: the URL is to be where the service is mounted, without a query or fragment")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// plainHTTP reports whether what goes to a service can be read on the way: it is neither
// https nor this machine.
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

// WithLogin has the client log in with a name and password (POST /login), at first
// and whenever it needs another token.
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

// WithToken has the client use this token, and end with [ErrUnauthenticated] when
// it no longer holds.
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

// WithTokenSource has the client ask for a token, at first and whenever it needs
// another one.
func WithTokenSource(source TokenSource) Option {
	return func(c *config) error {
		if source == nil {
			return errors.New("WithTokenSource: it is nil")
		}
		c.source = source
		c.ways++
		return nil
	}
}

// WithChannels joins channels from the start, beside everyone's and one's own,
// which are always joined. By default none.
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

// WithSince goes on where an earlier client was: ids is what its [Client.Since]
// returned, with [WithChannels] given what its [Client.Channels] returned. That is
// the last id of everyone's channel, of one's own, then of the channels in their
// order; "" stands for none, and what is left out at the end is none. A channel
// without an id starts live, which is the default for all.
func WithSince(ids ...string) Option {
	return func(c *config) error {
		c.since = slices.Clone(ids)
		return nil
	}
}

// WithHTTPClient is used for the HTTP routes and for the upgrade: its transport
// decides on TLS, proxies and how to dial, and its Timeout, if any, bounds each
// request and each handshake; none is needed, as the client has bounds of its own.
// Redirects are not followed. By default [http.DefaultClient].
func WithHTTPClient(h *http.Client) Option {
	return func(c *config) error {
		if h == nil {
			return errors.New("WithHTTPClient: it is nil")
		}
		c.http = h
		return nil
	}
}

// WithBackoff sets the wait before connecting again: a random part of a time that
// begins with least, doubles with each try and ends with most, and begins anew when
// a connection has lived for 10 seconds. By default 500 ms and 30 s.
func WithBackoff(least, most time.Duration) Option {
	return func(c *config) error {
		if least <= 0 || most < least {
			return fmt.Errorf("WithBackoff: %v and %v: the first has to be positive, the second no less", least, most)
		}
		c.minBackoff, c.maxBackoff = least, most
		return nil
	}
}

// WithLogger logs what the client does by itself: connections and their ends at
// level Info, what is odd at Warn, such as an http:// URL of another machine. Never a token or a password, nor any content. By
// default nothing is logged.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: it is nil")
		}
		c.logger = l
		return nil
	}
}

// WithEventLimit bounds what waits for the consumer of [Client.Events]: events, and
// bytes of content, names and ids in them. Past it the client stops reading for a
// little while, then drops what comes and fetches that once the consumer has caught
// up. As much again may be held while gaps are filled, in all channels together.
// By default 1024 events and 4 MiB.
func WithEventLimit(events, bytes int) Option {
	return func(c *config) error {
		if events < 1 || bytes < 1 {
			return fmt.Errorf("WithEventLimit: %d events and %d bytes: both have to be positive", events, bytes)
		}
		c.maxEvents, c.maxBytes = events, bytes
		return nil
	}
}

// WithReadLimit bounds one frame of the server's, in bytes. A longer one ends the
// connection with [ErrProtocol]. By default 1 MiB; a server that allows contents of
// more than about 150 KiB needs it to be six times as much.
func WithReadLimit(bytes int64) Option {
	return func(c *config) error {
		if bytes < 1024 {
			return fmt.Errorf("WithReadLimit: %d bytes: no less than 1024", bytes)
		}
		c.readLimit = bytes
		return nil
	}
}
