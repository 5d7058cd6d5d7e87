package chat_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/reto10/chat"
)

func TestOriginsThatNoBrowserSendsAreRefusedByName(t *testing.T) {
	tests := map[string]struct {
		origin, want string // "" is no error
	}{
		"a host":                          {"https://app.example.com", ""},
		"capitals":                        {"HTTPS://APP.example.com", ""},
		"a port":                          {"https://app.example.com:8443", ""},
		"the default port":                {"https://app.example.com:443", ""},
		"one label":                       {"http://localhost:3000", ""},
		"a label of a digit and a letter": {"http://2a", ""},
		"an underscore":                   {"https://my_app.example.com", ""},
		"subdomains":                      {"https://*.example.com", ""},
		"subdomains on a port":            {"https://*.example.com:8443", ""},
		"an IPv4 address":                 {"http://192.0.2.1:8080", ""},
		"an IPv6 address":                 {"http://[2001:db8::1]:8080", ""},
		"an app's own scheme":             {"capacitor://localhost", ""},
		"Punycode":                        {"https://xn--bcher-kva.example", ""},
		"everyone":                        {"*", ""},

		"not ASCII":                 {"https://bücher.example", "xn--"},
		"subdomains, not ASCII":     {"https://*.bücher.example", "xn--"},
		"a path":                    {"https://app.example.com/", `"/"`},
		"a query":                   {"https://app.example.com?", `"?"`},
		"a fragment":                {"https://app.example.com#a", `"#"`},
		"a user":                    {"https://ana@app.example.com", `"@"`},
		"a socket's scheme":         {"wss://app.example.com", "the page's"},
		"no scheme":                 {"app.example.com", "https://host[:port]"},
		"no host":                   {"https://", "https://host[:port]"},
		"the null origin":           {"null", "https://host[:port]"},
		"nothing":                   {"", "https://host[:port]"},
		"a space":                   {"https://app example.com", "https://host[:port]"},
		"no port behind the colon":  {"https://app.example.com:", "port"},
		"port 0":                    {"https://app.example.com:0", "port"},
		"a port too high":           {"https://app.example.com:65536", "port"},
		"a star inside":             {"https://a.*.example.com", "host"},
		"a star alone":              {"https://*", "host"},
		"a star and a dot":          {"https://*.", "host"},
		"two dots":                  {"https://app..example.com", "host"},
		"a percent sign":            {"https://app%2eexample.com", "host"},
		"a short IPv4 address":      {"http://127.1", "IPv4"},
		"an IPv4 address as number": {"http://0x7f000001", "IPv4"},
		"an IPv6 address's zone":    {"http://[fe80::1%25eth0]", "host"},
		"half an IPv6 address":      {"http://[::", "host"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			signer, err := chat.NewHS256(secret)
			if err != nil {
				t.Fatal(err)
			}
			service, err := chat.New(signer, chat.WithOrigins("https://other.example", tt.origin))
			if err == nil {
				_ = service.Shutdown(context.Background())
			}
			if (err == nil) != (tt.want == "") {
				t.Fatalf("error %v, want one about %q", err, tt.want)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", tt.origin))) {
				t.Errorf("error %v, want the value and %q in it", err, tt.want)
			}
		})
	}
}

// allows reports whether a service lets a page in: what it says to a preflight.
func allows(service *chat.Service, target, page string, change func(*http.Request)) bool {
	r := httptest.NewRequest("OPTIONS", target, nil) // with r.TLS for https
	r.Header.Set("Origin", page)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	service.ServeHTTP(w, r)
	return w.Header().Get("Access-Control-Allow-Origin") == page
}

func newService(t testing.TB, opts ...chat.Option) *chat.Service {
	t.Helper()
	signer, err := chat.NewHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(signer, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Shutdown(context.Background()) })
	return service
}

func TestOwnOriginIsThatOfTheServicesScheme(t *testing.T) {
	byHeader := chat.WithRequestScheme(func(r *http.Request) string { return r.Header.Get("X-Forwarded-Proto") })
	forwarded := func(scheme string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", scheme) }
	}
	tests := map[string]struct {
		target, page string
		change       func(*http.Request)
		opts         []chat.Option
		want         bool
	}{
		"https of https":                            {"https://chat.example/messages", "https://chat.example", nil, nil, true},
		"http of https":                             {"https://chat.example/messages", "http://chat.example", nil, nil, false},
		"http of https, port 80":                    {"https://chat.example/messages", "http://chat.example:80", nil, nil, false},
		"another port":                              {"https://chat.example/messages", "https://chat.example:8443", nil, nil, false},
		"the default port, given":                   {"https://chat.example:443/messages", "https://chat.example", nil, nil, true},
		"http of https, by WithOrigins":             {"https://chat.example/messages", "http://chat.example", nil, []chat.Option{chat.WithOrigins("http://chat.example")}, true},
		"http of plaintext":                         {"http://chat.example/messages", "http://chat.example", nil, nil, true},
		"https of plaintext, as behind a proxy":     {"http://chat.example/messages", "https://chat.example", nil, nil, true},
		"http of a proxy's https":                   {"http://chat.example/messages", "http://chat.example", forwarded("https"), []chat.Option{byHeader}, false},
		"https of a proxy's https":                  {"http://chat.example/messages", "https://chat.example", forwarded("HTTPS"), []chat.Option{byHeader}, true},
		"http of a proxy's http":                    {"http://chat.example/messages", "http://chat.example", forwarded("http"), []chat.Option{byHeader}, true},
		"https of a proxy's http":                   {"http://chat.example/messages", "https://chat.example", forwarded("http"), []chat.Option{byHeader}, false},
		"http of a proxy that does not say":         {"http://chat.example/messages", "http://chat.example", nil, []chat.Option{byHeader}, true},
		"http of https, whatever a header says":     {"https://chat.example/messages", "http://chat.example", forwarded("http"), []chat.Option{byHeader}, false},
		"an IPv6 host, written in another way":      {"https://[2001:DB8:0::1]/messages", "https://[2001:db8::1]", nil, nil, true},
		"a host that is written in capital letters": {"https://CHAT.example/messages", "https://chat.example", nil, nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := allows(newService(t, tt.opts...), tt.target, tt.page, tt.change); got != tt.want {
				t.Errorf("allowed: %v, want %v", got, tt.want)
			}
		})
	}
}

// A browser sends a form's or a plain POST for any page, and asks nobody first.
func TestPagesOfOtherOriginsPostNothing(t *testing.T) {
	s := serveLogin(t, chat.WithOrigins("https://app.example.com"))
	right := `{"username":"ana","password":"ana-pw"}`
	tests := map[string]struct {
		path, body string
		header     []string
		want       int
	}{
		"a program":                         {"/login", right, nil, 200},
		"the own page":                      {"/login", right, []string{"Origin", s.url}, 200},
		"an allowed page":                   {"/login", right, []string{"Origin", "https://app.example.com", "Sec-Fetch-Site", "cross-site"}, 200},
		"another page":                      {"/login", right, []string{"Origin", "https://evil.example"}, 403},
		"a page in a frame without rights":  {"/login", right, []string{"Origin", "null"}, 403},
		"another page, without an Origin":   {"/login", right, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"a subdomain's, without an Origin":  {"/login", right, []string{"Sec-Fetch-Site", "same-site"}, 403},
		"the own page, without an Origin":   {"/login", right, []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"an address that was typed":         {"/login", right, []string{"Sec-Fetch-Site", "none"}, 200},
		"another page's message":            {"/messages", `{"content":"x"}`, []string{"Origin", "https://evil.example"}, 403},
		"an allowed page's message":         {"/messages", `{"content":"x"}`, []string{"Origin", "https://app.example.com"}, 201},
		"another page disconnects somebody": {"/users/ana/disconnect", "", []string{"Origin", "https://evil.example"}, 403},
		"an allowed page disconnects":       {"/users/ana/disconnect", "", []string{"Origin", "https://app.example.com"}, 200},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			resp, body := s.request("POST", tt.path, s.token("admin"), tt.body, tt.header...)
			if resp.StatusCode != tt.want {
				t.Errorf("status %d (%s), want %d", resp.StatusCode, body, tt.want)
			}
			if tt.want == 403 {
				wantProblem(t, resp, body, 403)
			}
		})
	}
}

// An origin that is taken is one that a browser's page can have.
func FuzzOrigins(f *testing.F) {
	for _, seed := range []string{
		"https://app.example.com", "https://*.example.com:8443", "http://[2001:DB8::1]:80", "HTTP://LOCALHOST:0080",
		"https://bücher.example", "wss://a", "https://a.", "http://127.1", "x://[::ffff:1.2.3.4]", "*", "null", "://",
	} {
		f.Add(seed)
	}
	signer, err := chat.NewHS256(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		service, err := chat.New(signer, chat.WithOrigins(text))
		if err != nil {
			return
		}
		defer service.Shutdown(context.Background())
		page := strings.Replace(strings.ToLower(text), "://*.", "://sub.", 1)
		if !allows(service, "https://chat.example/messages", page, nil) {
			t.Errorf("%q is taken and does not let %q in", text, page)
		}
		if text != "*" && allows(service, "https://chat.example/messages", "https://evil.invalid", nil) && !strings.Contains(text, "invalid") {
			t.Errorf("%q lets another page in", text)
		}
	})
}
