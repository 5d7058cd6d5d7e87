package daemon

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/cli"
)

const (
	defaultAddr  = "localhost:8443"
	defaultDrain = 10 * time.Second
	defaultHSTS  = "8760h" // a year

	envPrefix = "CHATD_"
)

// config is what flags and environment say, and nothing that was done about it.
type config struct {
	addr           string
	plaintext      bool
	tlsCert        string
	tlsKey         string
	acmeDomains    []string
	acmeCache      string
	usersFile      string
	secretFile     string
	tokenTTL       time.Duration
	origins        []string
	page           bool
	heartbeat      time.Duration
	pings          bool
	trustedProxies []netip.Prefix
	perAddress     int
	waiting        int
	hsts           time.Duration
	debugAddr      string
	logLevel       slog.Level
	logFormat      string
	drain          time.Duration
	drainDelay     time.Duration
	storage        Storage
	version        bool

	given map[string]string // by flag: "-addr" or "CHATD_ADDR", whichever set it
}

// define lists the flags. Their environment variables follow from the names.
func (c *config) define(flags *flag.FlagSet, prog Program) {
	cli.Var(flags, &c.addr, "addr", defaultAddr, parseAddr,
		"listen on `host:port`; port 0 picks a free one; localhost is both 127.0.0.1 and ::1")
	flags.BoolVar(&c.plaintext, "plaintext", false,
		"serve HTTP instead of HTTPS, for behind a proxy that does TLS")
	flags.StringVar(&c.tlsCert, "tls-cert", "",
		"serve the certificate chain in this PEM `file`, read again on SIGHUP; without one, a self-signed certificate is made at start")
	flags.StringVar(&c.tlsKey, "tls-key", "",
		"the PEM `file` with the key to -tls-cert, read again on SIGHUP")
	cli.Var(flags, &c.acmeDomains, "acme-domain", "", parseDomains,
		"get a certificate for these comma-separated `domains` from Let's Encrypt; port 443 of each has to lead to -addr")
	flags.StringVar(&c.acmeCache, "acme-cache", "",
		"keep what -acme-domain got in this `directory`, which others cannot read; without it, in chatd-acme in the user's cache directory")
	flags.StringVar(&c.usersFile, "users", "",
		"let in the users of this `file`, lines of name:bcrypt-hash[:role] as from htpasswd -B, read again on SIGHUP; without one, admin and user are made at start")
	flags.StringVar(&c.secretFile, "secret-file", "",
		fmt.Sprintf("sign tokens with the content of this `file`, at least %d bytes; without one, a key is made at start", chat.MinSecret))
	cli.Var(flags, &c.tokenTTL, "token-ttl", "15m", cli.ParsePositive,
		"issued tokens are valid for this `duration`")
	cli.Var(flags, &c.origins, "origins", "", parseList,
		"let pages of these comma-separated `origins` in, besides those of the server's own")
	flags.BoolVar(&c.page, "page", true,
		"serve a page to chat on, at /, and the client that it is built on, at /chat.js")
	cli.Var(flags, &c.heartbeat, "heartbeat", "25s", cli.ParsePositive,
		"send something to each socket once in this `duration`, so that proxies keep it open; who gives no sign of life within twice of it is ended")
	flags.BoolVar(&c.pings, "pings", false,
		"have heartbeats answered by clients rather than by their kernels, in whose place a proxy's may be; on with -plaintext unless it is -pings=false")
	cli.Var(flags, &c.trustedProxies, "trusted-proxies", "", parsePrefixes,
		"believe X-Forwarded-For and X-Forwarded-Proto when they come from these comma-separated `networks` (CIDR) or addresses")
	cli.Var(flags, &c.perAddress, "connections-per-address", strconv.Itoa(defaultPerAddress), cli.ParseLimit,
		"let an IPv4 address, or a /64 of IPv6, have this `number` of connections that are no sockets; 0 is no limit, and for -trusted-proxies there is none")
	cli.Var(flags, &c.waiting, "waiting-connections", strconv.Itoa(defaultWaiting), cli.ParseLimit,
		"let this `number` of connections in all wait for their clients without being sockets; 0, or more, is a quarter of the open files")
	cli.Var(flags, &c.hsts, "hsts", defaultHSTS, parseHSTS,
		"tell browsers to come by https only for this `duration` (Strict-Transport-Security), with -tls-cert at port 443, or with -acme-domain; 0s has them forget it")
	cli.Var(flags, &c.debugAddr, "debug-addr", "", parseAddr,
		"serve /debug/vars over HTTP on `host:port`; not for strangers")
	cli.Var(flags, &c.logLevel, "log-level", "info", parseLevel,
		"log from this `level` on: debug, info, warn or error")
	cli.Var(flags, &c.logFormat, "log-format", "text", parseFormat,
		"write logs as `text|json`")
	cli.Var(flags, &c.drain, "drain", defaultDrain.String(), cli.ParsePositive,
		"the `duration` that SIGTERM has to send everybody away")
	cli.Var(flags, &c.drainDelay, "drain-delay", "0s", parseDelay,
		"after SIGTERM serve as before for this `duration`, with /readyz red, so that a balancer that asks it sends nobody here by the time that -drain begins")
	// Whatever is wrong with these two is found later: package flag would repeat
	// them in its errors, and there may be a password in them.
	flags.StringVar(&c.storage.Registry, "registry", InMemory,
		"the place `where` nodes meet that share users and messages: "+oneOf(InMemory, prog.Registries))
	flags.StringVar(&c.storage.History, "history", "",
		"the place `where` messages are kept: "+oneOf(InMemory+", "+Off, prog.Histories)+"; without one, in memory, or where the registry of several nodes is")
	cli.Var(flags, &c.storage.Count, "history-count", "", cli.ParseCount,
		"keep so many `messages` of each channel; without a number, as many as that kind of history does")
	cli.Var(flags, &c.storage.Age, "history-age", "", cli.ParsePositive,
		"keep messages for this `duration`; without one, as long as that kind of history does")
	flags.BoolVar(&c.version, "version", false, "print the version and exit")
}

// oneOf is for reading aloud.
func oneOf(first string, more []string) string {
	return strings.Join(append([]string{first}, more...), ", ")
}

// parseConfig reads flags, then the environment where flags are silent. An empty
// variable counts as none. Every error is a cli.UsageError, or flag.ErrHelp when help
// was asked for.
func parseConfig(prog Program, proc Process) (*config, *flag.FlagSet, error) {
	c := new(config)
	flags := flag.NewFlagSet(prog.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are ours to print
	c.define(flags, prog)
	if prog.Flags != nil {
		prog.Flags(flags)
	}
	if err := flags.Parse(proc.Args); errors.Is(err, flag.ErrHelp) {
		return nil, flags, err
	} else if err != nil {
		return nil, flags, cli.UsageError{Err: err}
	}
	if flags.NArg() > 0 {
		return nil, flags, cli.Usagef("unexpected argument %q", hidden(flags.Arg(0)))
	}
	var err error
	c.given, err = environment.Fill(flags, proc.LookupEnv)
	c.storage.Registry = cmp.Or(c.storage.Registry, InMemory)
	if c.given["pings"] == "" {
		c.pings = c.plaintext // a proxy does TLS
	}
	return c, flags, err
}

// environment has a variable for each flag but the one that asks a question rather
// than setting something.
var environment cli.Environment = func(flagName string) string {
	if flagName == "version" {
		return ""
	}
	return cli.Prefixed(envPrefix)(flagName)
}

// validate finds settings that hold each alone but not together.
func (c *config) validate() error {
	if err := c.storage.validate(); err != nil {
		return err
	}
	for _, pair := range [][2]string{
		{"plaintext", "tls-cert"},
		{"plaintext", "tls-key"},
		{"plaintext", "acme-domain"},
		{"plaintext", "hsts"},
		{"acme-domain", "tls-cert"},
		{"acme-domain", "tls-key"},
	} {
		if c.has(pair[0]) && c.has(pair[1]) {
			return cli.Usagef("%s and %s exclude each other", c.name(pair[0]), c.name(pair[1]))
		}
	}
	for _, pair := range [][2]string{
		{"tls-cert", "tls-key"},
		{"tls-key", "tls-cert"},
		{"acme-cache", "acme-domain"},
	} {
		if c.has(pair[0]) && !c.has(pair[1]) {
			return cli.Usagef("%s needs -%s", c.name(pair[0]), pair[1])
		}
	}
	return nil
}

// has reports whether a setting was given and says something: -plaintext=false
// and -users "" do not.
func (c *config) has(name string) bool {
	switch name {
	case "plaintext":
		return c.plaintext
	case "hsts":
		return c.given["hsts"] != "" && c.hsts > 0
	case "tls-cert":
		return c.tlsCert != ""
	case "tls-key":
		return c.tlsKey != ""
	case "acme-domain":
		return len(c.acmeDomains) > 0
	case "acme-cache":
		return c.acmeCache != ""
	}
	panic("daemon: has: " + name)
}

// name is how a person set a flag: "-users", or "CHATD_USERS (-users)".
func (c *config) name(flagName string) string {
	name := "-" + flagName
	if by := c.given[flagName]; by != "" && by != name {
		return by + " (" + name + ")"
	}
	return name
}

// mistake is an error about what a flag names, such as a file that cannot be read:
// starting again does not help before somebody changes it.
func (c *config) mistake(flagName string, err error) error {
	if err == nil {
		return nil
	}
	return cli.Usagef("%s: %w", c.name(flagName), err)
}

func parseAddr(s string) (string, error) {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", errors.New("not host:port")
	}
	if _, err := net.LookupPort("tcp", port); port == "" || err != nil {
		return "", fmt.Errorf("%q is no port", port)
	}
	return s, nil
}

// parseHSTS reads a duration in whole seconds, as the header has it.
func parseHSTS(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d%time.Second != 0 {
		return 0, errors.New("not a duration in seconds such as 8760h, or 0s")
	}
	return d, nil
}

// parseDomains reads names that a certificate can be got for.
func parseDomains(s string) ([]string, error) {
	domains, _ := parseList(s)
	if len(domains) == 0 {
		return nil, errors.New("no domain")
	}
	for _, domain := range domains {
		_, err := netip.ParseAddr(domain)
		if err == nil || strings.ContainsAny(domain, "/:*@?# ") || !strings.Contains(strings.Trim(domain, "."), ".") {
			return nil, fmt.Errorf("%q is no domain such as chat.example.com", domain)
		}
	}
	return domains, nil
}

// parseList takes a list apart at its commas; blanks around and empty ones do not
// count.
func parseList(s string) ([]string, error) {
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list, nil
}

func parsePrefixes(s string) ([]netip.Prefix, error) {
	parts, _ := parseList(s)
	var prefixes []netip.Prefix
	for _, part := range parts {
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			addr, err := netip.ParseAddr(part)
			if err != nil {
				return nil, fmt.Errorf("%q is no network such as 10.0.0.0/8 and no address", part)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

func parseLevel(s string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s)); err != nil {
		return 0, errors.New("not debug, info, warn or error")
	}
	return level, nil
}

func parseFormat(s string) (string, error) {
	if s != "text" && s != "json" {
		return "", errors.New("not text or json")
	}
	return s, nil
}
