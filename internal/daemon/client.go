package daemon

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientAddr says whose request it is, where proxies in the trusted networks
// stand before the server: the last address in X-Forwarded-For that is not a
// trusted proxy's own. Whatever is left of it anybody could have written. Without
// trusted networks, or when the request comes from elsewhere, it is the address
// that the connection comes from. The answer has no port.
func clientAddr(trusted []netip.Prefix) func(*http.Request) string {
	return func(r *http.Request) string {
		addr, ok := parseHop(r.RemoteAddr)
		if !ok {
			return r.RemoteAddr // a pipe, a test
		}
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, hop := range slices.Backward(hops) {
			if !isTrusted(trusted, addr) {
				break
			}
			next, ok := parseHop(strings.TrimSpace(hop))
			if !ok {
				break // nothing beyond this can be believed either
			}
			addr = next
		}
		return addr.String()
	}
}

// requestScheme says how a request came to a proxy in the trusted networks, by the
// first value of its X-Forwarded-Proto; "" where no such proxy says so.
func requestScheme(trusted []netip.Prefix) func(*http.Request) string {
	return func(r *http.Request) string {
		addr, ok := parseHop(r.RemoteAddr)
		if !ok || !isTrusted(trusted, addr) {
			return ""
		}
		first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
		return strings.TrimSpace(first)
	}
}

func isTrusted(trusted []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// parseHop reads an address, with a port or without, as a plain one: an IPv4
// address is one even when it came in as IPv6, and a zone does not matter.
func parseHop(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		withPort, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone(""), true
}
