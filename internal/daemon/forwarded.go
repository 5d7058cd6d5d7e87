package daemon

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// clientAddr returns a function that finds the address of a request's client, without a
// port. Without trusted networks, or for a request from outside of them, that is the
// address of the connection. Otherwise it is the last address in X-Forwarded-For that
// is not a trusted proxy's: a client may have forged whatever stands before it.
func clientAddr(trusted []netip.Prefix) func(*http.Request) string {
	return func(r *http.Request) string {
		addr, ok := parseHop(r.RemoteAddr)
		if !ok {
			return r.RemoteAddr // not an IP address, as with a pipe in a test
		}
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, hop := range slices.Backward(hops) {
			if !isTrusted(trusted, addr) {
				break
			}
			next, ok := parseHop(strings.TrimSpace(hop))
			if !ok {
				break // what stands before it cannot be trusted either
			}
			addr = next
		}
		return addr.String()
	}
}

// requestScheme returns a function that finds the scheme by which a client's request
// reached a trusted proxy, "http" or "https": the first value of X-Forwarded-Proto. It
// is "" when no trusted proxy names one.
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

// parseHop reads an address with or without a port. It returns an IPv4 address that is
// mapped into IPv6 as IPv4, and drops a zone.
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

// warnOfUntrustedProxy wraps client, a function of [clientAddr]. It warns, once, of a
// request with X-Forwarded-For from an untrusted address: if a proxy has that address,
// all its clients count as one.
func warnOfUntrustedProxy(client func(*http.Request) string, trusted []netip.Prefix, log *slog.Logger) func(*http.Request) string {
	var once sync.Once
	return func(r *http.Request) string {
		if len(r.Header["X-Forwarded-For"]) > 0 {
			if addr, ok := parseHop(r.RemoteAddr); ok && !isTrusted(trusted, addr) {
				once.Do(func() {
					log.Warn("-trusted-proxies does not name the address of a request with X-Forwarded-For: if it is your proxy, name it, or all clients behind it share one limit of logins", "address", addr)
				})
			}
		}
		return client(r)
	}
}
