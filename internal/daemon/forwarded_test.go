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
			client := warnOfUntrustedProxy(clientAddr(test.trusted), test.trusted, slog.New(slog.NewTextHandler(&logged, nil)))
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

func TestClientAddr(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	tests := map[string]struct {
		trusted   []netip.Prefix
		peer      string
		forwarded []string
		want      string
	}{
		"nobody in between":               {proxies, "192.0.2.1:1234", nil, "192.0.2.1"},
		"a stranger's header":             {proxies, "192.0.2.1:1234", []string{"203.0.113.9"}, "192.0.2.1"},
		"nobody is trusted":               {nil, "10.0.0.1:1234", []string{"203.0.113.9"}, "10.0.0.1"},
		"through a proxy":                 {proxies, "10.0.0.1:1234", []string{"203.0.113.9"}, "203.0.113.9"},
		"through two":                     {proxies, "10.0.0.1:1234", []string{"203.0.113.9, 10.0.0.2"}, "203.0.113.9"},
		"in two headers":                  {proxies, "10.0.0.1:1234", []string{"203.0.113.9", "10.0.0.2"}, "203.0.113.9"},
		"with a forged beginning":         {proxies, "10.0.0.1:1234", []string{"127.0.0.1, 10.9.9.9, 203.0.113.9,10.0.0.2"}, "203.0.113.9"},
		"a proxy that says nothing":       {proxies, "10.0.0.1:1234", nil, "10.0.0.1"},
		"a proxy's own request":           {proxies, "10.0.0.1:1234", []string{"10.0.0.3"}, "10.0.0.3"},
		"an invalid header":               {proxies, "10.0.0.1:1234", []string{"203.0.113.9, unknown"}, "10.0.0.1"},
		"with ports":                      {proxies, "10.0.0.1:1234", []string{"203.0.113.9:99, 10.0.0.2:99"}, "203.0.113.9"},
		"IPv6":                            {proxies, "[2001:db8::1]:1234", []string{"2001:0DB9::1"}, "2001:db9::1"},
		"IPv6 in brackets":                {proxies, "[2001:db8::1]:1234", []string{"[2001:db9::1]"}, "2001:db9::1"},
		"IPv6 with a port":                {proxies, "[2001:db8::1]:1234", []string{"[2001:db9::1]:99"}, "2001:db9::1"},
		"IPv4 on a socket for both":       {proxies, "[::ffff:10.0.0.1]:1234", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		"a zone":                          {proxies, "[fe80::1%eth0]:1234", nil, "fe80::1"},
		"no address at all, as of a pipe": {proxies, "pipe", []string{"203.0.113.9"}, "pipe"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: test.peer, Header: http.Header{"X-Forwarded-For": test.forwarded}}
			if got := clientAddr(test.trusted)(r); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestRequestScheme(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	tests := map[string]struct {
		trusted   []netip.Prefix
		peer      string
		forwarded []string
		want      string
	}{
		"a proxy's":           {proxies, "10.0.0.1:1234", []string{"https"}, "https"},
		"of two proxies":      {proxies, "10.0.0.1:1234", []string{"https, http"}, "https"},
		"a proxy says none":   {proxies, "10.0.0.1:1234", nil, ""},
		"a stranger's header": {proxies, "192.0.2.1:1234", []string{"https"}, ""},
		"nobody is trusted":   {nil, "10.0.0.1:1234", []string{"https"}, ""},
		"no address at all":   {proxies, "pipe", []string{"https"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: test.peer, Header: http.Header{"X-Forwarded-Proto": test.forwarded}}
			if got := requestScheme(test.trusted)(r); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
