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

// config is the settings from flags and environment, and nothing derived from them.
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

	given map[string]string // by flag name, what set it: "-addr" or "CHATD_ADDR"
}

// define defines the flags. The names of their environment variables follow from theirs.
func (c *config) define(flags *flag.FlagSet, prog Program) {
	cli.Var(flags, &c.addr, "addr", defaultAddr, parseAddr,
		"listen on `host:port`; port 0 picks a free port; localhost is both 127.0.0.1 and ::1")
	flags.BoolVar(&c.plaintext, "plaintext", false,
		"serve HTTP instead of HTTPS, behind a proxy that does TLS")
	flags.StringVar(&c.tlsCert, "tls-cert", "",
		"serve the certificate chain in this PEM `file`; SIGHUP reloads it; without it, a self-signed certificate is made at start")
	flags.StringVar(&c.tlsKey, "tls-key", "",
		"the PEM `file` with the key of -tls-cert; SIGHUP reloads it")
	cli.Var(flags, &c.acmeDomains, "acme-domain", "", parseDomains,
		"get a certificate for these comma-separated `domains` from Let's Encrypt; port 443 of each must lead to -addr")
	flags.StringVar(&c.acmeCache, "acme-cache", "",
		"keep the certificates and keys of -acme-domain in this `directory`, made for its owner alone; by default chatd-acme in the user's cache directory")
	flags.StringVar(&c.usersFile, "users", "",
		"accept the users in this `file`, lines of name:bcrypt-hash[:role] as from htpasswd -B; SIGHUP reloads it; without it, admin and user are made at start")
	flags.StringVar(&c.secretFile, "secret-file", "",
		fmt.Sprintf("sign tokens with the content of this `file`, at least %d bytes; without it, a key is made at start", chat.MinSecret))
	cli.Var(flags, &c.tokenTTL, "token-ttl", "15m", cli.ParsePositive,
		"tokens are valid for this `duration`")
	cli.Var(flags, &c.origins, "origins", "", parseList,
		"accept web pages from these comma-separated `origins`, besides the server's own")
	flags.BoolVar(&c.page, "page", true,
		"serve the web client at /, and the JavaScript client at /chat.js")
	cli.Var(flags, &c.heartbeat, "heartbeat", "25s", cli.ParsePositive,
		"send something to each socket once in this `duration`, so that proxies keep it open; a client without a sign of life for twice as long is disconnected")
	flags.BoolVar(&c.pings, "pings", false,
		"send heartbeats as pings, which the client itself answers; otherwise an acknowledgement by the kernel at the other end is enough, and behind a proxy that is the proxy's; on by default with -plaintext")
	cli.Var(flags, &c.trustedProxies, "trusted-proxies", "", parsePrefixes,
		"believe X-Forwarded-For and X-Forwarded-Proto from these comma-separated `networks` (CIDR) or addresses")
	cli.Var(flags, &c.perAddress, "connections-per-address", strconv.Itoa(defaultPerAddress), cli.ParseLimit,
		"allow an IPv4 address, or an IPv6 /64, this `number` of connections, WebSockets not counted; 0 is no limit; -trusted-proxies have none")
	cli.Var(flags, &c.waiting, "waiting-connections", strconv.Itoa(defaultWaiting), cli.ParseLimit,
		"allow this `number` of connections in all that wait for their clients, WebSockets not counted; never more than a quarter of the open files, which is also what 0 means")
	cli.Var(flags, &c.hsts, "hsts", defaultHSTS, parseHSTS,
		"tell browsers to use HTTPS only, for this `duration` (Strict-Transport-Security); sent with -tls-cert on port 443, and with -acme-domain; 0s makes browsers forget it")
	cli.Var(flags, &c.debugAddr, "debug-addr", "", parseAddr,
		"serve /debug/vars over HTTP on `host:port`; keep it private")
	cli.Var(flags, &c.logLevel, "log-level", "info", parseLevel,
		"the lowest `level` to log: debug, info, warn or error")
	cli.Var(flags, &c.logFormat, "log-format", "text", parseFormat,
		"write logs as `text|json`")
	cli.Var(flags, &c.drain, "drain", defaultDrain.String(), cli.ParsePositive,
		"after SIGTERM, disconnect all clients within this `duration`")
	cli.Var(flags, &c.drainDelay, "drain-delay", "0s", parseDelay,
		"after SIGTERM, first serve as before for this `duration`, but answer /readyz with 503, so that balancers send new clients elsewhere before -drain begins")
	// Storage settings are validated later: package flag would repeat a wrong value in
	// its error, and the value may contain a password.
	flags.StringVar(&c.storage.Registry, "registry", InMemory,
		"`where` nodes share users and messages: "+joinChoices(InMemory, prog.Registries))
	flags.StringVar(&c.storage.History, "history", "",
		"`where` messages are kept: "+joinChoices(InMemory+", "+Off, prog.Histories)+"; by default in memory, or in the registry that nodes share")
	cli.Var(flags, &c.storage.Count, "history-count", "", cli.ParseCount,
		"keep this number of `messages` of each channel; the default depends on the kind of history")
	cli.Var(flags, &c.storage.Age, "history-age", "", cli.ParsePositive,
		"keep messages for this `duration`; the default depends on the kind of history")
	flags.BoolVar(&c.version, "version", false, "print the version and exit")
}

func joinChoices(first string, more []string) string {
	return strings.Join(append([]string{first}, more...), ", ")
}

// parseConfig reads the flags, then the environment variables of flags that are not given.
// An empty variable counts as unset. Every error is a cli.UsageError, or flag.ErrHelp
// when help was asked for.
func parseConfig(prog Program, proc Process) (*config, *flag.FlagSet, error) {
	c := new(config)
	flags := flag.NewFlagSet(prog.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // Main prints the error
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
		return nil, flags, cli.Usagef("unexpected argument %q", redactSetting(flags.Arg(0)))
	}
	var err error
	c.given, err = environment.Fill(flags, proc.LookupEnv)
	c.storage.Registry = cmp.Or(c.storage.Registry, InMemory)
	if c.given["pings"] == "" {
		c.pings = c.plaintext // there is a proxy in front
	}
	return c, flags, err
}

// environment names a variable for each flag but -version.
var environment cli.Environment = func(flagName string) string {
	if flagName == "version" {
		return ""
	}
	return cli.Prefixed(envPrefix)(flagName)
}

// validate reports settings that are valid alone but not together.
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

// has reports whether a setting is given and has an effect: -plaintext=false and
// -tls-cert "" have none.
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

// name names a flag as the person set it: "-users", or "CHATD_USERS (-users)".
func (c *config) name(flagName string) string {
	name := "-" + flagName
	if by := c.given[flagName]; by != "" && by != name {
		return by + " (" + name + ")"
	}
	return name
}

// flagError returns err as a mistake in a flag, or in the file that the flag names: the
// program does not start until a person corrects it.
func (c *config) flagError(flagName string, err error) error {
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
		return "", fmt.Errorf("%q is not a port", port)
	}
	return s, nil
}

// parseHSTS reads a duration in whole seconds, the unit of the header.
func parseHSTS(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d%time.Second != 0 {
		return 0, errors.New("not a duration in seconds such as 8760h, or 0s")
	}
	return d, nil
}

// parseDelay reads a duration that may be 0.
func parseDelay(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errors.New("not a duration such as 3s, or 0s")
	}
	return d, nil
}

// parseDomains reads names that Let's Encrypt can issue a certificate for.
func parseDomains(s string) ([]string, error) {
	domains, _ := parseList(s)
	if len(domains) == 0 {
		return nil, errors.New("names no domain")
	}
	for _, domain := range domains {
		_, err := netip.ParseAddr(domain)
		if err == nil || strings.ContainsAny(domain, "/:*@?# ") || !strings.Contains(strings.Trim(domain, "."), ".") {
			return nil, fmt.Errorf("%q is not a domain such as chat.example.com", domain)
		}
	}
	return domains, nil
}

// parseList splits s at its commas. It trims blanks and drops empty parts.
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
				return nil, fmt.Errorf("%q is neither a network such as 10.0.0.0/8 nor an address", part)
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
