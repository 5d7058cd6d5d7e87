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

// parseOrigin parses an origin in upper or lower case, with or without a default port. It
// returns an error for an origin that no browser sends.
func parseOrigin(text string) (origin, error) {
	scheme, host, ok := strings.Cut(strings.ToLower(text), "://")
	if !ok || scheme == "" || host == "" {
		return origin{}, errors.New("not of the form https://host[:port]")
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r > '~' }); i >= 0 {
		return origin{}, errors.New("the host is not ASCII: write it in Punycode (xn--…), as browsers send it")
	}
	if i := strings.IndexAny(host, "/?#@"); i >= 0 {
		return origin{}, fmt.Errorf("not of the form https://host[:port]: %q follows the host", host[i:i+1])
	}
	switch u, err := url.Parse(scheme + "://" + host); {
	case err != nil || u.Host != host:
		return origin{}, errors.New("not of the form https://host[:port]")
	case scheme == "ws" || scheme == "wss":
		return origin{}, errors.New("want the page's origin, http or https, not the socket's")
	}
	host, err := canonicalHost(host, scheme)
	return origin{scheme, host}, err
}

// canonicalHost returns host, with or without a port, as a browser writes it for this
// scheme. host is in lower case.
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

// checkName returns an error for a host name that no browser sends.
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

// allowedOrigins are the origins of WithOrigins.
type allowedOrigins struct {
	all   bool
	exact []origin
	below []origin // their subdomains
}

// add adds an origin as WithOrigins expects it.
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

// originAllowed reports whether r may be served: its Origin is the service's own or is
// allowed, or r has no Origin, so no page sent it.
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

// isOwn reports whether o is the origin of the service that r was sent to: the host is the
// same and, if it is known, the scheme. Anyone on the network can change a page that is
// loaded over http, so its origin differs from that of https.
func (s *Service) isOwn(o origin, r *http.Request) bool {
	if scheme := s.schemeOf(r); scheme != "" && scheme != o.scheme {
		return false
	}
	host, err := canonicalHost(strings.ToLower(r.Host), o.scheme)
	return err == nil && host == o.host
}

// schemeOf returns the scheme of r, "https" or "http", or "" if it is unknown because a
// proxy may have ended TLS.
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

// checkPage rejects a POST that a page of another origin sends. A browser may send it
// without a preflight, and then hides only the answer from the page. The browser names
// the page's origin in Origin, or describes it in Sec-Fetch-Site if there is no Origin.
func (s *Service) checkPage(r *http.Request) error {
	if !s.originAllowed(r) {
		return wrapf(ErrForbidden, "origin %q is not allowed", shorten(r.Header.Get("Origin")))
	}
	if r.Header.Get("Origin") == "" && !s.cfg.origins.all {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "cross-site", "same-site":
			return wrapf(ErrForbidden, "pages of other origins may not send this (WithOrigins)")
		}
	}
	return nil
}
