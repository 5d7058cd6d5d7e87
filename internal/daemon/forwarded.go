package daemon

import (
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
)

// warnOfProxies wraps the answer to whose request it is. It warns, once, of a request with
// X-Forwarded-For from an address that is not trusted: when that is a proxy, all of its
// clients count as one.
func warnOfProxies(client func(*http.Request) string, trusted []netip.Prefix, log *slog.Logger) func(*http.Request) string {
	var once sync.Once
	return func(r *http.Request) string {
		if len(r.Header["X-Forwarded-For"]) > 0 {
			if addr, ok := parseHop(r.RemoteAddr); ok && !isTrusted(trusted, addr) {
				once.Do(func() {
					log.Warn("a request with X-Forwarded-For came from an address that -trusted-proxies does not name: if a proxy of yours has that address, all clients behind it count as one and share their limits of logins; name it in -trusted-proxies", "address", addr)
				})
			}
		}
		return client(r)
	}
}
