package daemon

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestAProxyThatIsNotTrustedIsWarnedOfOnce(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	tests := map[string]struct {
		trusted         []netip.Prefix
		peer, forwarded string
		want            int
	}{
		"nobody is trusted":        {nil, "192.0.2.1:1234", "203.0.113.9", 1},
		"another one is trusted":   {trusted, "192.0.2.1:1234", "203.0.113.9", 1},
		"a trusted one":            {trusted, "10.0.0.1:1234", "203.0.113.9", 0},
		"a client without a proxy": {nil, "192.0.2.1:1234", "", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var logged strings.Builder
			client := warnOfProxies(clientAddr(test.trusted), test.trusted, slog.New(slog.NewTextHandler(&logged, nil)))
			r := &http.Request{RemoteAddr: test.peer, Header: http.Header{}}
			if test.forwarded != "" {
				r.Header.Set("X-Forwarded-For", test.forwarded)
			}
			for range 3 {
				if got, want := client(r), clientAddr(test.trusted)(r); got != want {
					t.Errorf("client %s, want %s", got, want)
				}
			}
			if got := strings.Count(logged.String(), "-trusted-proxies does not name"); got != test.want {
				t.Errorf("warned %d times, want %d: %s", got, test.want, logged.String())
			}
		})
	}
}
