package chat_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
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
			signer, err := chat.NewHS256(chatserver.Secret)
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
	signer, err := chat.NewHS256(chatserver.Secret)
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

// A browser sends the POST of a form or of plain text for any page, without a preflight.
func TestPagesOfOtherOriginsPostNothing(t *testing.T) {
	s := serveLogin(t, chat.WithOrigins("https://app.example.com"))
	right := `{"username":"ana","password":"ana-pw"}`
	tests := map[string]struct {
		path, body string
		header     []string
		want       int
	}{
		"a program":                         {"/login", right, nil, 200},
		"the own page":                      {"/login", right, []string{"Origin", s.URL}, 200},
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
			resp, body := s.Request("POST", tt.path, s.Token("admin"), tt.body, tt.header...)
			if resp.StatusCode != tt.want {
				t.Errorf("status %d (%s), want %d", resp.StatusCode, body, tt.want)
			}
			if tt.want == 403 {
				chatserver.WantProblem(t, resp, body, 403)
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
	signer, err := chat.NewHS256(chatserver.Secret)
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

func TestCORSFollowsTheAllowedOrigins(t *testing.T) {
	s := chatserver.Serve(t, chat.WithOrigins("https://app.example.com"))
	tests := map[string]struct{ method, origin, want string }{
		"preflight from an allowed origin": {"OPTIONS", "https://app.example.com", "https://app.example.com"},
		"request from an allowed origin":   {"GET", "https://app.example.com", "https://app.example.com"},
		"preflight from another":           {"OPTIONS", "https://evil.example", ""},
		"request from another":             {"GET", "https://evil.example", ""},
		"no origin":                        {"GET", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			header := []string{"Origin", tt.origin}
			if tt.origin == "" {
				header = nil
			}
			resp, _ := s.Request(tt.method, "/messages", s.Token("ana"), "", header...)
			h := resp.Header
			if got := h.Get("Access-Control-Allow-Origin"); got != tt.want {
				t.Errorf("Access-Control-Allow-Origin = %q, want %q", got, tt.want)
			}
			if h.Get("Access-Control-Allow-Credentials") != "" {
				t.Error("credentials are allowed; tokens are no cookies")
			}
			if allowed := tt.method == "OPTIONS" && tt.want != ""; allowed != strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") {
				t.Errorf("Access-Control-Allow-Headers = %q", h.Get("Access-Control-Allow-Headers"))
			}
			if h.Get("Vary") != "Origin" {
				t.Errorf("Vary = %q, want Origin", h.Get("Vary"))
			}
		})
	}
}

func TestQueriesThatCannotBeReadAreRefused(t *testing.T) {
	s := serveLogin(t)
	routes := map[string]struct {
		method, path, body string
		header             []string
	}{
		"socket":     {"GET", "/ws/chat", "", chatserver.UpgradeHeaders},
		"connected":  {"GET", "/users/connected", "", nil},
		"history":    {"GET", "/messages", "", nil},
		"publish":    {"POST", "/messages", `{"content":"x"}`, nil},
		"disconnect": {"POST", "/users/ana/disconnect", "", nil},
		"login":      {"POST", "/login", `{"username":"ana","password":"ana-pw"}`, nil},
	}
	queries := map[string]string{
		"a semicolon":             "channel=ops;x",
		"a semicolon of its own":  "channel=ops&;",
		"a percent sign":          "channel=%zz",
		"half an escape":          "channel=ops&x=%2",
		"two tokens":              "token=a&token=a",
		"a semicolon in a token":  "token=secret;x",
		"an escape in a token":    "token=secret%zz",
		"a percent sign in names": "%=1",
	}
	for route, r := range routes {
		for what, query := range queries {
			t.Run(route+"/"+what, func(t *testing.T) {
				resp, body := s.Request(r.method, r.path+"?"+query, s.Token("admin"), r.body, r.header...)
				chatserver.WantProblem(t, resp, body, 400)
				if strings.Contains(body, "secret") {
					t.Errorf("the token in %s", body)
				}
			})
		}
		t.Run(route+"/an unknown parameter", func(t *testing.T) {
			const query = "?utm=1&utm=2&x"
			if route == "socket" { // whose answer has no end
				if resp, body := requestRaw(s, t, r.path+query, s.Token("admin"), nil); resp.StatusCode != 101 {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
				return
			}
			if resp, body := s.Request(r.method, r.path+query, s.Token("admin"), r.body); resp.StatusCode >= 400 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
	if got := s.Stats().RefusedBy["invalid"]; got != uint64(len(queries)) {
		t.Errorf("%d handshakes counted as invalid, want %d", got, len(queries))
	}
}

func TestAParameterThatCountsOnceComesOnce(t *testing.T) {
	s := chatserver.Serve(t)
	for path, want := range map[string]int{
		"/messages?channel=ops&channel=news":        400,
		"/messages?channel=ops&channel=ops":         400,
		"/messages?channel=&channel=ops":            400,
		"/messages?limit=1&limit=2":                 400,
		"/messages?before=&before=":                 400,
		"/messages?after=1-e&after=2-e":             400,
		"/users/connected?channel=ops&channel=news": 400,
		"/messages?channel=ops&limit=1&before=":     200,
		"/users/connected?channel=ops":              200,
	} {
		resp, body := s.Request("GET", path, s.Token("admin"), "")
		if resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
	// A socket's channels and ids are many.
	c := s.Dial("ana", "channel", "ops", "channel", "news", "channel", "ops")
	s.Publish("news", "x")
	c.WantText("x")
}

// Whatever a query says, it is answered as a whole or not at all: a history that comes
// back is that of the channel which the query names to every reader.
func FuzzQuery(f *testing.F) {
	signer, err := chat.NewHS256(chatserver.Secret)
	if err != nil {
		f.Fatal(err)
	}
	history := chat.NewMemoryHistory(chat.MemoryLimits{})
	service := newService(f, chat.WithHistory(history), chat.WithConnectRate(0, 0))
	for _, channel := range []string{"", "ops", "@ana"} {
		if _, err := service.Broadcast(f.Context(), chat.Message{Channel: channel, Content: "in " + channel}); err != nil {
			f.Fatal(err)
		}
	}
	issued, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleAdmin})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"", "channel=ops", "channel=ops;x", "channel=ops&limit=1&limit=2", "before=&limit=5000", "after=1-e-ops",
		"channel=%40ana", "channel=%6fps", "channel=ops&channel=news&since=1-e&since=x", "token=x", "channel=@bob", "%", "&&=&",
		"channel=" + strings.Repeat("a", 200), "since=" + strings.Repeat("9", 40) + "-e", "limit=-1", "limit=0x10", "channel=a+b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		ask := func(path string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", path, nil)
			r.URL.RawQuery = raw
			r.Header.Set("Authorization", "Bearer "+issued.AccessToken)
			w := httptest.NewRecorder() // has no connection to take over
			if path == "/ws/chat" {
				for i := 0; i < len(chatserver.UpgradeHeaders); i += 2 {
					r.Header.Set(chatserver.UpgradeHeaders[i], chatserver.UpgradeHeaders[i+1])
				}
			}
			service.ServeHTTP(w, r)
			return w
		}
		query, err := url.ParseQuery(raw)
		twice := func(names ...string) bool {
			return slices.ContainsFunc(append(names, "token"), func(name string) bool { return len(query[name]) > 1 })
		}
		channel := query.Get("channel")

		w := ask("/messages")
		if (err != nil || twice("channel", "after", "before", "limit")) && w.Code != http.StatusBadRequest {
			t.Errorf("history: status %d", w.Code)
		}
		if w.Code == http.StatusOK && query.Get("after") == "" && query.Get("before") == "" {
			if want := fmt.Sprintf(`"content":"in %s"`, channel); slices.Contains([]string{"", "ops", "@ana"}, channel) && !strings.Contains(w.Body.String(), want) {
				t.Errorf("%q is answered with %s", raw, w.Body)
			}
		}
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest && w.Code != http.StatusForbidden {
			t.Errorf("history: status %d", w.Code)
		}
		w = ask("/users/connected")
		if (err != nil || twice("channel")) != (w.Code == http.StatusBadRequest) && (channel == "" || chat.ValidChannel(channel)) {
			t.Errorf("connected: status %d", w.Code)
		}
		// A handshake gets as far as to the connection, which is not there, and no further.
		w = ask("/ws/chat")
		switch bad := err != nil || twice(); {
		case bad && w.Code != http.StatusBadRequest,
			!bad && !slices.Contains([]int{http.StatusBadRequest, http.StatusForbidden, http.StatusServiceUnavailable}, w.Code):
			t.Errorf("socket: status %d", w.Code)
		}
	})
}

// A token travels in one of three places. The first that has one decides, and no answer
// repeats any of them.
func FuzzTokenExtraction(f *testing.F) {
	signer, err := chat.NewHS256(chatserver.Secret)
	if err != nil {
		f.Fatal(err)
	}
	service, err := chat.New(signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = service.Shutdown(context.Background()) })
	issued, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleUser})
	if err != nil {
		f.Fatal(err)
	}
	good := issued.AccessToken
	for _, seed := range [][3]string{
		{"Bearer GOOD", "", ""}, {"", "chat.v1, bearer.GOOD", ""}, {"", "", "GOOD"},
		{"Bearer bad", "bearer.GOOD", "GOOD"}, {"Basic YTpi", "", "GOOD"}, {"bearer  GOOD ", ",,", ""},
		{"Bearer", "bearer.", ""}, {"Bearer GOOD\x00", "bearer.GOOD.GOOD", "%"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, header, protocols, query string) {
		place := func(s string) string { return strings.ReplaceAll(s, "GOOD", good) }
		r := httptest.NewRequest("GET", "/messages", nil)
		r.URL.RawQuery = "token=" + place(query)
		r.Header["Authorization"] = []string{place(header)}
		r.Header["Sec-Websocket-Protocol"] = []string{place(protocols)}
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)

		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil || len(r.URL.Query()["token"]) > 1 {
			if w.Code != http.StatusBadRequest {
				t.Errorf("status %d for the query %q", w.Code, r.URL.RawQuery)
			}
			return
		}
		some := strings.Contains(header+protocols+r.URL.Query().Get("token"), "GOOD") || strings.Contains(place(header+protocols)+r.URL.Query().Get("token"), good)
		if w.Code == http.StatusOK && !some {
			t.Errorf("let in with %q, %q, %q", header, protocols, query)
		}
		if w.Code != http.StatusOK && w.Code != http.StatusUnauthorized {
			t.Errorf("status %d", w.Code)
		}
		if header == "Bearer GOOD" && w.Code != http.StatusOK {
			t.Errorf("a good header was refused: %s", w.Body)
		}
		if strings.Contains(w.Body.String(), good) {
			t.Errorf("the answer holds the token: %s", w.Body)
		}
	})
}
