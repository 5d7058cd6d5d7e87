package chat

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// origin is a page's origin as browsers write it (RFC 6454, section 6.2): lower case
// and without a default port.
type origin struct{ scheme, host string }

func (o origin) String() string { return o.scheme + "://" + o.host }

// parseOrigin reads an origin in any case, with or without a default port. The error
// says what in it no browser would send.
func parseOrigin(text string) (origin, error) {
	scheme, host, ok := strings.Cut(strings.ToLower(text), "://")
	if !ok || scheme == "" || host == "" {
		return origin{}, errors.New("not of the form https://host[:port]")
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r > '~' }); i >= 0 {
		return origin{}, errors.New("browsers send such a host as xn--…, in ASCII (Punycode): write it like that")
	}
	if i := strings.IndexAny(host, "/?#@"); i >= 0 {
		return origin{}, fmt.Errorf("not of the form https://host[:port]: it goes on with %q", host[i:i+1])
	}
	switch u, err := url.Parse(scheme + "://" + host); {
	case err != nil || u.Host != host:
		return origin{}, errors.New("not of the form https://host[:port]")
	case scheme == "ws" || scheme == "wss":
		return origin{}, errors.New("the origin is the page's, which is http or https, not the socket's")
	}
	host, err := canonicalHost(host, scheme)
	return origin{scheme, host}, err
}

// canonicalHost is a host with or without a port as a browser writes it, after the
// scheme. It is in lower case already.
func canonicalHost(host, scheme string) (string, error) {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		name, port = host[:i], host[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", fmt.Errorf("%q is not a port", port)
		}
		port = strconv.FormatUint(n, 10)
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		address, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || address.Zone() != "" || !address.Is6() {
			return "", fmt.Errorf("%q is not an IPv6 address", name)
		}
		name = "[" + address.String() + "]"
		if address.Is4In6() { // netip would write ::ffff:192.0.2.1
			b := address.As16()
			name = fmt.Sprintf("[::ffff:%x:%x]", uint(b[12])<<8|uint(b[13]), uint(b[14])<<8|uint(b[15]))
		}
	} else if err := checkName(name); err != nil {
		return "", err
	}
	if port == "" || port == defaultPort(scheme) {
		return name, nil
	}
	return name + ":" + port, nil
}

// checkName reports what no browser sends as a host's name.
func checkName(name string) error {
	allowed := func(r rune) bool {
		return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.'
	}
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	last := labels[len(labels)-1]
	_, err := netip.ParseAddr(name)
	switch {
	case slices.Contains(labels, ""):
		return fmt.Errorf("%q is not a host", name)
	case strings.ContainsFunc(name, func(r rune) bool { return !allowed(r) }):
		return fmt.Errorf("%q is not a host", name)
	case err != nil && isNumber(last):
		return fmt.Errorf("%q is not an IPv4 address such as 192.0.2.1", name)
	}
	return nil
}

// isNumber reports whether browsers take a host that ends with this label for an IPv4
// address (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func defaultPort(scheme string) string {
	return map[string]string{"http": "80", "https": "443"}[scheme]
}

// allowedOrigins are those of WithOrigins.
type allowedOrigins struct {
	all   bool
	exact []origin
	below []origin // their subdomains
}

// add reads what WithOrigins takes.
func (a *allowedOrigins) add(text string) error {
	if text == "*" {
		a.all = true
		return nil
	}
	scheme, host, _ := strings.Cut(text, "://")
	domain, wild := strings.CutPrefix(host, "*.")
	if wild {
		text = scheme + "://" + domain
	}
	o, err := parseOrigin(text)
	switch {
	case err != nil:
		return err
	case wild:
		a.below = append(a.below, o)
	default:
		a.exact = append(a.exact, o)
	}
	return nil
}

func (a *allowedOrigins) contain(o origin) bool {
	return a.all || slices.Contains(a.exact, o) || slices.ContainsFunc(a.below, func(domain origin) bool {
		return o.scheme == domain.scheme && strings.HasSuffix(o.host, "."+domain.host)
	})
}

// originAllowed reports whether the page that sends r may: its origin is the
// service's own, or an allowed one, or r is of no page.
func (s *Service) originAllowed(r *http.Request) bool {
	sent := r.Header.Values("Origin")
	switch {
	case len(sent) == 0:
		return true
	case len(sent) > 1:
		return false // RFC 6454, section 7.3: a browser sends one
	case s.cfg.origins.all:
		return true // also "null"
	}
	o, err := parseOrigin(sent[0])
	return err == nil && (s.isOwn(o, r) || s.cfg.origins.contain(o))
}

// isOwn reports whether an origin is that of the service to which r was sent: the host
// is the same, and the scheme, where it is known. A page that came over http may be
// anybody's on the way, so it is another's than one over https.
func (s *Service) isOwn(o origin, r *http.Request) bool {
	if scheme := s.schemeOf(r); scheme != "" && scheme != o.scheme {
		return false
	}
	host, err := canonicalHost(strings.ToLower(r.Host), o.scheme)
	return err == nil && host == o.host
}

// schemeOf is how r came, "https" or "http", or "" where that is not known: TLS may
// have ended before this program.
func (s *Service) schemeOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	switch scheme := strings.ToLower(s.cfg.scheme(r)); scheme {
	case "http", "https":
		return scheme
	}
	return ""
}

// checkPage refuses what a page of another origin has a browser send. A browser asks
// nobody before it sends such a POST, and hides only the answer from the page. It says
// whose page it is by Origin, and by Sec-Fetch-Site where there is no Origin.
func (s *Service) checkPage(r *http.Request) error {
	if !s.originAllowed(r) {
		return wrapf(ErrForbidden, "pages of this origin may not send this")
	}
	if r.Header.Get("Origin") == "" && !s.cfg.origins.all {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "cross-site", "same-site":
			return wrapf(ErrForbidden, "pages of other origins may not send this")
		}
	}
	return nil
}
