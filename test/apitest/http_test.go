package apitest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"

	goodPage = "https://app.example.com" // allowed by -origins
	badPage  = "https://evil.example.com"
)

// handshake is a WebSocket's, with another value for some of its headers, or ""
// for none.
func handshake(pairs ...string) http.Header {
	h := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}
	for i := 0; i < len(pairs); i += 2 {
		if h.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			h.Del(pairs[i])
		}
	}
	return h
}

// TestHTTP causes every documented status.
func TestHTTP(t *testing.T) {
	c := newContract(t)
	t.Run("routes", func(t *testing.T) { askEverything(t, c) })
	t.Run("without a history", func(t *testing.T) {
		d := chatd.Start(t, nil, "-history", "off")
		c.want(t, d, request{method: "GET", path: "/messages", token: d.Token("user")}, 405)
	})
	t.Run("without a login", func(t *testing.T) { askWithoutLogin(t, c) })
	t.Run("logins fail", func(t *testing.T) { guessPasswords(t, c) })
	t.Run("logins are too many", func(t *testing.T) { crowdLogin(t, c) })
	t.Run("pages are too many", func(t *testing.T) { crowdHistory(t, c) })
	t.Run("connecting too often", func(t *testing.T) { connectTooOften(t, c) })
	t.Run("draining", func(t *testing.T) { askWhileDraining(t, c) })
	t.Run("without Redis", func(t *testing.T) { askWithoutRedis(t, c) })
	for _, missing := range c.unseen() {
		t.Errorf("documented and never seen: %s", missing)
	}
}

// want makes a request to a program and checks the status.
func (c *contract) want(t *testing.T, d *chatdtest.Process, r request, status int) answer {
	t.Helper()
	a, _ := c.do(t, d.HTTP, d.URL, r)
	if a.status != status {
		t.Fatalf("%s %s: %d %s, want %d", r.method, r.path, a.status, a.body, status)
	}
	return a
}

func askEverything(t *testing.T, c *contract) {
	d := chatd.Start(t, nil, "-origins", goodPage)
	admin, user := d.Token("admin"), d.Token("user")
	first := c.want(t, d, request{method: "POST", path: "/messages", token: admin, body: `{"content":"first"}`, kind: jsonType}, 201).field(t, "id").(string)
	second := c.want(t, d, request{method: "POST", path: "/messages", token: admin, body: `{"content":"é\n<b>","channel":"ops"}`, kind: jsonType}, 201).field(t, "id").(string)
	c.want(t, d, request{method: "POST", path: "/messages", token: admin, body: `{"content":"to one","channel":"@user"}`, kind: jsonType}, 201)
	bulk := `"` + strings.Repeat("x", 70<<10) + `"`

	var tooMany strings.Builder
	for i := range 128 + 1 {
		fmt.Fprintf(&tooMany, "channel=%d&", i)
	}

	type test struct {
		request
		want int
		// The document says that the request is wrong, too.
		documented bool
	}
	tests := []test{
		{request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin","password":"correct horse"}`}, 200, false},
		{request{method: "POST", path: "/login", kind: formType, body: url.Values{"username": {"user"}, "password": {"battery staple"}}.Encode()}, 200, false},
		{request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin","password":"correct horse"}`, header: http.Header{"Origin": {goodPage}}}, 200, false},
		{request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin"}`}, 400, true},
		{request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin","password":"x","more":1}`}, 400, true},
		{request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin","password":null}`}, 400, true},
		{request{method: "POST", path: "/login", kind: formType, body: "username=admin&password=x&more=1"}, 400, false},
		{request{method: "POST", path: "/login?a;b", kind: jsonType, body: `{"username":"admin","password":"correct horse"}`}, 400, false},
		{request{method: "POST", path: "/login", kind: "text/plain", body: `{"username":"admin","password":"correct horse"}`}, 415, true},
		{request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin","password":"correct horse"}`, header: http.Header{"Origin": {badPage}}}, 403, false},
		{request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin","password":` + bulk + `}`}, 413, false},
		{request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"admin","password":"wrong"}`, header: http.Header{"Origin": {goodPage}}}, 401, false},

		{request{method: "GET", path: "/ws/chat", token: user, header: handshake()}, 101, false},
		{request{method: "GET", path: "/ws/chat?token=" + user, header: handshake("Connection", "keep-alive, Upgrade")}, 101, false},
		{request{method: "GET", path: "/ws/chat?channel=ops&channel=dev&since=" + first, header: handshake("Sec-WebSocket-Protocol", "chat.v1, bearer."+user)}, 101, false},
		{request{method: "GET", path: "/ws/chat", token: user, header: handshake("Origin", goodPage)}, 101, false},
		{request{method: "GET", path: "/ws/chat", token: user, header: handshake("Sec-WebSocket-Key", "short")}, 400, true},
		{request{method: "GET", path: "/ws/chat?channel=no/name", token: user, header: handshake()}, 400, true},
		{request{method: "GET", path: "/ws/chat?" + strings.TrimSuffix(tooMany.String(), "&"), token: user, header: handshake()}, 400, false},
		{request{method: "GET", path: "/ws/chat", header: handshake()}, 401, true},
		{request{method: "GET", path: "/ws/chat", token: "forged", header: handshake()}, 401, false},
		{request{method: "GET", path: "/ws/chat?channel=@admin", token: user, header: handshake()}, 403, false},
		{request{method: "GET", path: "/ws/chat", token: user, header: handshake("Origin", badPage)}, 403, false},
		{request{method: "GET", path: "/ws/chat", token: user}, 426, true},
		{request{method: "GET", path: "/ws/chat", token: user, header: handshake("Sec-WebSocket-Version", "8")}, 426, true},
		{request{method: "GET", path: "/ws/chat"}, 426, true},

		{request{method: "GET", path: "/users/connected", token: admin}, 200, false},
		{request{method: "GET", path: "/users/connected?channel=ops", token: admin, header: http.Header{"Origin": {goodPage}}}, 200, false},
		{request{method: "GET", path: "/users/connected?channel=", token: admin}, 200, false},
		{request{method: "GET", path: "/users/connected?token=" + admin}, 200, false},
		{request{method: "GET", path: "/users/connected?channel=no/name", token: admin}, 400, true},
		{request{method: "GET", path: "/users/connected"}, 401, true},
		{request{method: "GET", path: "/users/connected", token: user}, 403, false},

		{request{method: "POST", path: "/users/user/disconnect", token: admin}, 200, false},
		{request{method: "POST", path: "/users/auth0%7C123/disconnect", token: admin}, 200, false},
		{request{method: "POST", path: "/users/%20x/disconnect", token: admin}, 400, true},
		{request{method: "POST", path: "/users/user/disconnect"}, 401, true},
		{request{method: "POST", path: "/users/user/disconnect", token: user}, 403, false},

		{request{method: "GET", path: "/messages", token: user}, 200, false},
		{request{method: "GET", path: "/messages?channel=ops&limit=1", token: user, header: http.Header{"Origin": {goodPage}}}, 200, false},
		{request{method: "GET", path: "/messages?channel=@user", token: user}, 200, false},
		{request{method: "GET", path: "/messages?limit=5000&after=" + second, token: user}, 200, false},
		{request{method: "GET", path: "/messages?before=" + second, token: user}, 200, false},
		{request{method: "GET", path: "/messages?before=&channel=ops", token: user}, 200, false},
		{request{method: "GET", path: "/messages?after=1-lost", token: user}, 200, false},
		{request{method: "GET", path: "/messages?before=9-lost", token: user}, 200, false},
		{request{method: "GET", path: "/messages?after=no/id", token: user}, 400, true},
		{request{method: "GET", path: "/messages?limit=0", token: user}, 400, true},
		{request{method: "GET", path: "/messages?limit=few", token: user}, 400, true},
		{request{method: "GET", path: "/messages?channel=dev&after=" + second, token: user}, 400, false},
		{request{method: "GET", path: "/messages?before=&after=", token: user}, 400, false},
		{request{method: "GET", path: "/messages?limit=1;x", token: user}, 400, false},
		{request{method: "GET", path: "/messages?limit=1&limit=2", token: user}, 400, false},
		{request{method: "GET", path: "/messages"}, 401, true},
		{request{method: "GET", path: "/messages?channel=@admin", token: user}, 403, false},

		{request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":""}`}, 400, true},
		{request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"a\u0000b"}`}, 400, true},
		{request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"x","channel":"no/name"}`}, 400, true},
		{request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"x","more":1}`}, 400, true},
		{request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `"x"`}, 400, true},
		{request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"x"}`, header: http.Header{"Origin": {badPage}}}, 403, false},
		{request{method: "POST", path: "/messages", kind: jsonType, body: `{"content":"x"}`}, 401, true},
		{request{method: "POST", path: "/messages", token: user, kind: jsonType, body: `{"content":"x"}`}, 403, false},
		{request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":` + bulk + `}`}, 413, true},
		{request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"` + strings.Repeat("x", 33<<10) + `"}`}, 413, true},

		{request{method: "GET", path: "/healthz"}, 200, false},
		{request{method: "HEAD", path: "/healthz"}, 200, false},
		{request{method: "POST", path: "/healthz"}, 404, false},
		{request{method: "GET", path: "/readyz"}, 200, false},
		{request{method: "HEAD", path: "/readyz"}, 200, false},
		{request{method: "OPTIONS", path: "/readyz"}, 404, false},
		{request{method: "GET", path: "/nowhere", token: admin}, 404, false},
		{request{method: "DELETE", path: "/nowhere"}, 404, false},
	}
	for _, path := range []string{"/login", "/ws/chat", "/users/connected", "/users/user/disconnect", "/messages"} {
		for _, page := range []string{goodPage, badPage, ""} {
			h := http.Header{"Origin": {page}, "Access-Control-Request-Method": {"GET"}}
			if page == "" {
				h = nil
			}
			tests = append(tests, test{request{method: "OPTIONS", path: path, header: h}, 204, false})
		}
		for _, method := range []string{"PUT", "DELETE", "PATCH", "HEAD", "TRACE"} {
			tests = append(tests, test{request{method: method, path: path, token: admin}, 405, false})
		}
	}
	for _, test := range tests {
		a, wrong := c.do(t, d.HTTP, d.URL, test.request)
		if a.status != test.want {
			t.Errorf("%s %s %.80s: %d %s, want %d", test.method, test.path, test.body, a.status, a.body, test.want)
		}
		if test.documented && wrong == nil {
			t.Errorf("%s %s %.80s: %d, but the document allows it", test.method, test.path, test.body, a.status)
		}
		if allowed := a.header.Get("Access-Control-Allow-Origin"); test.header.Get("Origin") == goodPage && allowed != goodPage ||
			test.header.Get("Origin") == badPage && allowed != "" {
			t.Errorf("%s %s from %s: allowed to %q", test.method, test.path, test.header.Get("Origin"), allowed)
		}
	}

	// A non-admin posts no faster than WithCommandRate allows.
	post := request{method: "POST", path: "/messages", token: user, kind: jsonType, body: `{"content":"x"}`}
	for range 40 * 10 {
		if a, _ := c.do(t, d.HTTP, d.URL, post); a.status == 429 {
			return
		}
	}
	t.Error("no end to what a user may post")
}

// askWithoutLogin makes requests to a service that has tokens and no passwords.
func askWithoutLogin(t *testing.T, c *contract) {
	d, _ := embedded(t)
	c.want(t, d, request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"ana","password":"x"}`}, 404)
}

// embedded is a service in this process, for options that have no flag.
func embedded(t *testing.T, opts ...chat.Option) (*chatdtest.Process, *chat.HS256) {
	t.Helper()
	signer, err := chat.NewHS256([]byte(chatdtest.Secret))
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(signer, opts...)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(service)
	t.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = service.Shutdown(over) // cuts off who is still there
		server.Close()
	})
	return &chatdtest.Process{URL: server.URL, HTTP: server.Client()}, signer
}

// connectTooOften opens sockets more often than a user may.
func connectTooOften(t *testing.T, c *contract) {
	d, signer := embedded(t, chat.WithConnectRate(0.001, 1))
	token, err := signer.Issue(chat.User{Name: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	open := request{method: "GET", path: "/ws/chat?channel=no+name", token: token.AccessToken, header: handshake()}
	c.want(t, d, open, 400)
	c.want(t, d, open, 429)
}

func guessPasswords(t *testing.T, c *contract) {
	d := chatd.Start(t, nil)
	guess := request{method: "POST", path: "/login", kind: jsonType, body: `{"username":"user","password":"guess"}`}
	for range 10 {
		c.want(t, d, guess, 401)
	}
	c.want(t, d, guess, 429)
}

// crowdLogin sends more logins at once than may wait.
func crowdLogin(t *testing.T, c *contract) {
	// Of cost 16: the first is checked for longer than the others take to come.
	const slow = "admin:$2a$16$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW:admin\n"
	d := chatd.Run(t, []string{"GOMAXPROCS=2"}, "-addr", "127.0.0.1:0", "-users", chatdtest.WriteFile(t, "users", slow))
	var tries sync.WaitGroup
	busy := make(chan bool, 39)
	for i := range cap(busy) { // a network has 40 tries
		tries.Go(func() {
			body := url.Values{"username": {"nobody" + string(rune('A'+i))}, "password": {"x"}}.Encode()
			resp, err := d.HTTP.Post(d.URL+"/login", formType, strings.NewReader(body))
			if err != nil {
				return // cut off below
			}
			resp.Body.Close()
			if resp.StatusCode == http.StatusServiceUnavailable {
				busy <- true
			}
		})
	}
	select {
	case <-busy:
	case <-time.After(chatdtest.Patience):
		t.Fatal("every login finds a place to wait")
	}
	c.want(t, d, request{method: "POST", path: "/login", kind: formType, body: "username=admin&password=x"}, 503)
	d.Kill()
	tries.Wait()
}

// hangingHistory does not answer until the context ends.
type hangingHistory struct {
	chat.History
	asked chan struct{}
}

func (h *hangingHistory) After(ctx context.Context, _ string, _ chat.Position, _ chat.Limit) ([]chat.Message, error) {
	h.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// crowdHistory requests more pages at once than a user may.
func crowdHistory(t *testing.T, c *contract) {
	h := &hangingHistory{chat.NewMemoryHistory(chat.MemoryLimits{}), make(chan struct{}, 100)}
	d, signer := embedded(t, chat.WithHistory(h), chat.WithLogger(slog.New(slog.DiscardHandler)))
	token, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleUser})
	if err != nil {
		t.Fatal(err)
	}
	page := request{method: "GET", path: "/messages", token: token.AccessToken}
	ctx, giveUp := context.WithCancel(t.Context())
	var pages sync.WaitGroup
	for range 40 { // 4 are being sent, 28 wait
		pages.Go(func() {
			if resp, err := d.HTTP.Do(page.build(t, d.URL).WithContext(ctx)); err == nil {
				resp.Body.Close()
			}
		})
	}
	<-h.asked
	<-h.asked
	c.want(t, d, page, 429)
	giveUp()
	pages.Wait()
}

func askWhileDraining(t *testing.T, c *contract) {
	d := chatd.Start(t, nil, "-drain", "20s")
	user := d.Token("user")
	// This client answers no close frame, which the server waits for.
	resp, err := d.HTTP.Do(request{method: "GET", path: "/ws/chat", token: user, header: handshake()}.build(t, d.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d.Signal(syscall.SIGTERM)
	wstest.Eventually(t, "draining", func() bool {
		status, _ := d.Request("GET", "/readyz", "", "")
		return status == http.StatusServiceUnavailable
	})
	c.want(t, d, request{method: "GET", path: "/readyz"}, 503)
	c.want(t, d, request{method: "HEAD", path: "/readyz"}, 503)
	c.want(t, d, request{method: "GET", path: "/healthz"}, 200)
	c.want(t, d, request{method: "GET", path: "/ws/chat", token: user, header: handshake()}, 503)
}

func askWithoutRedis(t *testing.T, c *contract) {
	redis := chatdtest.StartRedis(t)
	d := cluster.Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()})
	admin := d.Token("admin")
	c.want(t, d, request{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"x"}`}, 201)
	redis.End()
	for _, r := range []request{
		{method: "GET", path: "/messages", token: admin},
		{method: "POST", path: "/messages", token: admin, kind: jsonType, body: `{"content":"x"}`},
		{method: "GET", path: "/users/connected", token: admin},
		{method: "POST", path: "/users/user/disconnect", token: admin},
		{method: "GET", path: "/readyz"},
	} {
		c.want(t, d, r, 503)
	}
}
