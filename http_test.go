package chat_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/crypto/bcrypt"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/pipenet"
	"github.com/reto10/chat/test/wstest"
)

// serveLogin starts a service with the users admin and ana, whose passwords are
// their names and "-pw".
func serveLogin(t testing.TB, opts ...chat.Option) *chatserver.Server {
	t.Helper()
	return serveLoginOf(t, "", opts...)
}

// serveLoginOf has more users: lines of a users file.
func serveLoginOf(t testing.TB, lines string, opts ...chat.Option) *chatserver.Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveUsers(t, l, (&net.Dialer{}).DialContext, lines, opts...)
}

func serveUsers(t testing.TB, l net.Listener, dial chatserver.DialFunc, lines string, opts ...chat.Option) *chatserver.Server {
	t.Helper()
	var file strings.Builder
	file.WriteString(lines)
	for _, name := range []string{"admin", "ana"} {
		hash, err := bcrypt.GenerateFromPassword([]byte(name+"-pw"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		role := map[string]string{"admin": "admin", "ana": "user"}[name]
		fmt.Fprintf(&file, "%s:%s:%s\n", name, hash, role)
	}
	users, err := chat.ParseUsers(strings.NewReader(file.String()))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := chat.NewHS256(chatserver.Secret)
	if err != nil {
		t.Fatal(err)
	}
	return chatserver.ServeAuth(t, l, dial, signer, chat.NewPasswordLogin(users, signer), opts...)
}

func TestLogin(t *testing.T) {
	s := serveLogin(t)
	form := "application/x-www-form-urlencoded"
	tests := map[string]struct {
		contentType, body string
		status            int
	}{
		"JSON":                   {"application/json", `{"username":"ana","password":"ana-pw"}`, 200},
		"JSON with a charset":    {"application/json; charset=utf-8", `{"username":"ana","password":"ana-pw"}`, 200},
		"form":                   {form, "username=ana&password=ana-pw", 200},
		"wrong password":         {"application/json", `{"username":"ana","password":"nope"}`, 401},
		"unknown user":           {"application/json", `{"username":"nobody","password":"nope"}`, 401},
		"name in another case":   {"application/json", `{"username":"ANA","password":"ana-pw"}`, 401},
		"empty password":         {"application/json", `{"username":"ana","password":""}`, 400},
		"no password":            {"application/json", `{"username":"ana"}`, 400},
		"unknown field":          {"application/json", `{"username":"ana","password":"ana-pw","otp":1}`, 400},
		"trailing data":          {"application/json", `{"username":"ana","password":"ana-pw"}{}`, 400},
		"an array":               {"application/json", `["ana","ana-pw"]`, 400},
		"empty":                  {"application/json", ``, 400},
		"no JSON":                {"application/json", `username=ana`, 400},
		"form with another key":  {form, "username=ana&password=ana-pw&x=1", 400},
		"form with two names":    {form, "username=ana&username=admin&password=ana-pw", 400},
		"form in the query only": {form, "", 400},
		"over 64 KiB":            {"application/json", `{"username":"` + strings.Repeat("a", 70<<10) + `","password":"x"}`, 413},
		"form over 64 KiB":       {form, "username=" + strings.Repeat("a", 70<<10), 413},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			resp, body := s.Request("POST", "/login?username=ana&password=ana-pw", "", tt.body, "Content-Type", tt.contentType)
			if tt.status != 200 {
				chatserver.WantProblem(t, resp, body, tt.status)
				if strings.Contains(body, "ana-pw") || strings.Contains(body, "nope") {
					t.Errorf("the answer echoes a password: %s", body)
				}
				return
			}
			var got struct {
				AccessToken string `json:"access_token"`
				TokenType   string `json:"token_type"`
				ExpiresIn   int    `json:"expires_in"`
			}
			if resp.StatusCode != 200 || json.Unmarshal([]byte(body), &got) != nil {
				t.Fatalf("%d %s", resp.StatusCode, body)
			}
			if got.TokenType != "bearer" || got.ExpiresIn != 15*60 || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("answer = %+v, %v", got, resp.Header)
			}
			if resp, body := s.Request("GET", "/messages", got.AccessToken, ""); resp.StatusCode != 200 {
				t.Errorf("with the token: %d %s", resp.StatusCode, body)
			}
		})
	}
	t.Run("wrong password and unknown user are the same answer", func(t *testing.T) {
		_, wrong := s.Request("POST", "/login", "", `{"username":"ana","password":"x"}`)
		_, unknown := s.Request("POST", "/login", "", `{"username":"nobody","password":"x"}`)
		if wrong != unknown {
			t.Errorf("%s differs from %s", wrong, unknown)
		}
	})
}

func TestLoginTriedTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipenet.Listen()
		s := serveInstantLogin(t, l) // 1,100 bcrypt hashes take half a minute with -race
		try := func(user, password, addr string) *http.Response { return tryLogin(s, user, password, addr) }
		for i := range 10 {
			if resp := try("ana", "wrong", "addr"); resp.StatusCode != 401 {
				t.Fatalf("try %d: %d, want 401", i, resp.StatusCode)
			}
		}
		resp := try("ana", "ana-pw", "addr")
		if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "12" {
			t.Fatalf("try 11 for a user: %d, Retry-After %q, want 429 and 12", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		if resp := try("admin", "admin-pw", "addr"); resp.StatusCode != 200 {
			t.Errorf("another user meanwhile: %d, want 200", resp.StatusCode)
		}
		if resp := try("ana", "ana-pw", "her own"); resp.StatusCode != 200 {
			t.Errorf("the user herself from elsewhere meanwhile: %d, want 200", resp.StatusCode)
		}
		<-time.After(12 * time.Second)
		if resp := try("ana", "ana-pw", "addr"); resp.StatusCode != 200 {
			t.Errorf("after Retry-After: %d, want 200", resp.StatusCode)
		}
		for i := range 600 { // 200, and 400 of a reserve for networks that did not fail before
			if resp := try("bob", "wrong", fmt.Sprint("bot", i)); resp.StatusCode != 401 {
				t.Fatalf("try %d from another address: %d, want 401", i, resp.StatusCode)
			}
		}
		if resp := try("bob", "wrong", "one more bot"); resp.StatusCode != 429 {
			t.Errorf("try 601 for a user from all addresses: %d, want 429", resp.StatusCode)
		}
		for i := range 240 { // 40, and 200 of a reserve for users who did not fail before
			if resp := try(fmt.Sprint("user", i), "wrong", "one"); resp.StatusCode != 401 {
				t.Fatalf("try %d from an address: %d, want 401", i, resp.StatusCode)
			}
		}
		if resp := try("admin", "admin-pw", "one"); resp.StatusCode != 429 {
			t.Errorf("try 241 from an address: %d, want 429", resp.StatusCode)
		}
		for i := range 240 {
			if resp := try(fmt.Sprint("six", i), "wrong", fmt.Sprintf("2001:db8::%x", i)); resp.StatusCode != 401 {
				t.Fatalf("try %d from an IPv6 network: %d, want 401", i, resp.StatusCode)
			}
		}
		if resp := try("admin", "admin-pw", "2001:db8::ffff:1"); resp.StatusCode != 429 {
			t.Errorf("try 241 from an IPv6 network: %d, want 429", resp.StatusCode)
		}
		for range 30 {
			if resp := try("admin", "admin-pw", "two"); resp.StatusCode != 200 {
				t.Fatalf("a login that succeeds: %d, want 200 however often", resp.StatusCode)
			}
		}
	})
}

func TestServiceWithoutLoginProviderHasNoLogin(t *testing.T) {
	s := chatserver.Serve(t)
	resp, body := s.Request("POST", "/login", "", `{"username":"ana","password":"x"}`)
	chatserver.WantProblem(t, resp, body, 404)
}

func TestTokenTravelsInThreeWays(t *testing.T) {
	s := chatserver.Serve(t)
	good, bad := s.Token("ana"), "not.a.token"
	tests := map[string]struct {
		header http.Header
		query  string
		status int
	}{
		"header":                              {http.Header{"Authorization": {"Bearer " + good}}, "", 101},
		"header in another case":              {http.Header{"Authorization": {"bearer " + good}}, "", 101},
		"subprotocol":                         {http.Header{"Sec-Websocket-Protocol": {"chat.v1, bearer." + good}}, "", 101},
		"subprotocol in a header of its own":  {http.Header{"Sec-Websocket-Protocol": {"chat.v1", "bearer." + good}}, "", 101},
		"query":                               {nil, good, 101},
		"header before query":                 {http.Header{"Authorization": {"Bearer " + bad}}, good, 401},
		"subprotocol before query":            {http.Header{"Sec-Websocket-Protocol": {"chat.v1, bearer." + bad}}, good, 401},
		"another scheme's header is no token": {http.Header{"Authorization": {"Basic YTpi"}}, good, 101},
		"none":                                {nil, "", 401},
		"bad":                                 {nil, bad, 401},
		"20 KB":                               {http.Header{"Authorization": {"Bearer " + good + strings.Repeat("A", 20_000)}}, "", 401},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			header := append([]string(nil), chatserver.UpgradeHeaders...)
			req, _ := http.NewRequest("GET", s.URL+"/ws/chat?token="+tt.query, nil)
			for i := 0; i < len(header); i += 2 {
				req.Header.Set(header[i], header[i+1])
			}
			for k, v := range tt.header {
				req.Header[k] = v
			}
			resp, err := s.HTTP.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d, want %d", resp.StatusCode, tt.status)
			}
			if got := resp.Header.Get("Sec-WebSocket-Protocol"); strings.Contains(got, "bearer") {
				t.Errorf("the token came back as subprotocol %q", got)
			}
			if offered := tt.header["Sec-Websocket-Protocol"]; tt.status == 101 && offered != nil && resp.Header.Get("Sec-WebSocket-Protocol") != "chat.v1" {
				t.Errorf("subprotocol = %q, want chat.v1", resp.Header.Get("Sec-WebSocket-Protocol"))
			}
		})
	}
}

func TestHandshakeIsRefusedWithAProblem(t *testing.T) {
	s := chatserver.Serve(t, chat.WithOrigins("https://app.example.com", "https://*.example.org"))
	host := strings.TrimPrefix(s.URL, "http://")
	tests := map[string]struct {
		change []string // of the headers, in pairs; "" removes
		path   string
		status int
	}{
		"no upgrade":               {[]string{"Upgrade", "", "Connection", ""}, "", 426},
		"another upgrade":          {[]string{"Upgrade", "h2c"}, "", 426},
		"an old version":           {[]string{"Sec-WebSocket-Version", "8"}, "", 426},
		"no key":                   {[]string{"Sec-WebSocket-Key", ""}, "", 400},
		"a short key":              {[]string{"Sec-WebSocket-Key", "YWJj"}, "", 400},
		"another origin":           {[]string{"Origin", "https://evil.example"}, "", 403},
		"the null origin":          {[]string{"Origin", "null"}, "", 403},
		"an origin like ours":      {[]string{"Origin", "https://app.example.com.evil.example"}, "", 403},
		"a parent of a wildcard":   {[]string{"Origin", "https://example.org"}, "", 403},
		"another scheme":           {[]string{"Origin", "http://app.example.com"}, "", 403},
		"a bad channel":            {nil, "?channel=a%20b", 400},
		"another's own channel":    {nil, "?channel=%40bob", 403},
		"our own origin":           {[]string{"Origin", "http://" + host}, "", 101},
		"an allowed origin":        {[]string{"Origin", "https://APP.example.com"}, "", 101},
		"a subdomain of a allowed": {[]string{"Origin", "https://a.b.example.org"}, "", 101},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			resp, body := requestRaw(s, t, "/ws/chat"+tt.path, s.Token("ana"), tt.change)
			if tt.status == 101 {
				if resp.StatusCode != 101 {
					t.Fatalf("status = %d %s, want 101", resp.StatusCode, body)
				}
				return
			}
			chatserver.WantProblem(t, resp, body, tt.status)
			if tt.status == 426 && resp.Header.Get("Upgrade") != "websocket" {
				t.Errorf("a 426 without Upgrade: websocket (RFC 9110, section 15.5.22)")
			}
		})
	}
	t.Run("neither upgrade nor token", func(t *testing.T) {
		resp, body := requestRaw(s, t, "/ws/chat", "", []string{"Upgrade", "", "Connection", ""})
		chatserver.WantProblem(t, resp, body, 426)
	})
}

// requestRaw sends a handshake with changed headers, without reading a body of a 101.
func requestRaw(s *chatserver.Server, t *testing.T, path, token string, change []string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(chatserver.UpgradeHeaders); i += 2 {
		req.Header.Set(chatserver.UpgradeHeaders[i], chatserver.UpgradeHeaders[i+1])
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(change); i += 2 {
		req.Header.Del(change[i])
		if change[i+1] != "" {
			req.Header.Set(change[i], change[i+1])
		}
	}
	resp, err := s.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == 101 {
		return resp, ""
	}
	var body strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		body.Write(buf[:n])
		if err != nil {
			return resp, body.String()
		}
	}
}

func TestOnlyProblemsAreErrors(t *testing.T) {
	s := chatserver.Serve(t)
	tests := map[string]struct {
		method, path, token, body string
		status                    int
		allow                     string
	}{
		"unknown path":            {"GET", "/nothing", "", "", 404, ""},
		"path with a double /":    {"GET", "//ws/chat", "ana", "", 404, ""},
		"path with dots":          {"GET", "/users/../messages", "ana", "", 404, ""},
		"user without a name":     {"POST", "/users//disconnect", "admin", "", 400, ""},
		"wrong method":            {"DELETE", "/messages", "", "", 405, "GET, POST, OPTIONS"},
		"GET of disconnect":       {"GET", "/users/ana/disconnect", "", "", 405, "POST, OPTIONS"},
		"connected, no token":     {"GET", "/users/connected", "", "", 401, ""},
		"connected, no admin":     {"GET", "/users/connected", "ana", "", 403, ""},
		"connected, bad channel":  {"GET", "/users/connected?channel=a%20b", "admin", "", 400, ""},
		"messages, no token":      {"GET", "/messages", "", "", 401, ""},
		"messages, bad id":        {"GET", "/messages?after=x", "ana", "", 400, ""},
		"messages, bad limit":     {"GET", "/messages?limit=x", "ana", "", 400, ""},
		"messages, limit 0":       {"GET", "/messages?limit=0", "ana", "", 400, ""},
		"messages, bad before":    {"GET", "/messages?before=x", "ana", "", 400, ""},
		"messages, both ways":     {"GET", "/messages?before=&after=", "ana", "", 400, ""},
		"messages, other channel": {"GET", "/messages?before=1-e-ops&channel=news", "ana", "", 400, ""},
		"publish, no token":       {"POST", "/messages", "", `{"content":"x"}`, 401, ""},
		"publish, no admin":       {"POST", "/messages", "ana", `{"content":"x"}`, 403, ""},
		"publish, no content":     {"POST", "/messages", "admin", `{}`, 400, ""},
		"publish, null channel":   {"POST", "/messages", "admin", `{"content":"x","channel":null}`, 400, ""},
		"publish, no channel":     {"POST", "/messages", "admin", `{"content":"x","channel":""}`, 400, ""},
		"publish, content twice":  {"POST", "/messages", "admin", `{"content":"x","content":"y"}`, 400, ""},
		"publish, another case":   {"POST", "/messages", "admin", `{"Content":"x"}`, 400, ""},
		"publish, not UTF-8":      {"POST", "/messages", "admin", "{\"content\":\"\xff\"}", 400, ""},
		"publish, unknown field":  {"POST", "/messages", "admin", `{"content":"x","to":"y"}`, 400, ""},
		"publish, bad channel":    {"POST", "/messages", "admin", `{"content":"x","channel":"a b"}`, 400, ""},
		"publish, content large":  {"POST", "/messages", "admin", `{"content":"` + strings.Repeat("x", 33<<10) + `"}`, 413, ""},
		"publish, body large":     {"POST", "/messages", "admin", `{"content":"` + strings.Repeat("x", 65<<10) + `"}`, 413, ""},
		"disconnect, no admin":    {"POST", "/users/ana/disconnect", "ana", "", 403, ""},
		"disconnect, no username": {"POST", "/users/%20/disconnect", "admin", "", 400, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token := ""
			if tt.token != "" {
				token = s.Token(tt.token)
			}
			resp, body := s.Request(tt.method, tt.path, token, tt.body)
			chatserver.WantProblem(t, resp, body, tt.status)
			if got := resp.Header.Get("Allow"); got != tt.allow {
				t.Errorf("Allow = %q, want %q", got, tt.allow)
			}
		})
	}
}

func TestConnectedListsUsersNotSockets(t *testing.T) {
	s := chatserver.Serve(t)
	s.Dial("bob", "channel", "news")
	first, second := s.Dial("ana"), s.Dial("ana", "channel", "news")
	s.Dial("admin")
	type user struct {
		Username, Role string
		Connections    int
		Since          string
	}
	list := func(query string) (users []user) {
		resp, body := s.Request("GET", "/users/connected"+query, s.Token("admin2"), "")
		var got struct {
			Count int
			Users []user
		}
		if resp.StatusCode != 200 || json.Unmarshal([]byte(body), &got) != nil || got.Users == nil || got.Count != len(got.Users) {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		for _, u := range got.Users {
			if at, err := time.Parse(time.RFC3339, u.Since); err != nil || time.Since(at) > time.Minute {
				t.Errorf("since %q: %v", u.Since, err)
			}
		}
		return got.Users
	}
	noSince := cmpopts.IgnoreFields(user{}, "Since")
	want := []user{{"admin", "admin", 1, ""}, {"ana", "user", 2, ""}, {"bob", "user", 1, ""}}
	if diff := cmp.Diff(want, list(""), noSince); diff != "" {
		t.Errorf("connected (-want +got):\n%s", diff)
	}
	want = []user{{"ana", "user", 1, ""}, {"bob", "user", 1, ""}}
	if diff := cmp.Diff(want, list("?channel=news"), noSince); diff != "" {
		t.Errorf("in news (-want +got):\n%s", diff)
	}
	second.HangUp()
	wstest.Eventually(t, "ana to be there once and out of news", func() bool {
		return len(list("?channel=news")) == 1 && list("")[1].Connections == 1
	})
	first.HangUp()
	wstest.Eventually(t, "ana to be gone", func() bool { return len(list("")) == 2 })
	if got := list("?channel=nowhere"); len(got) != 0 {
		t.Errorf("in an empty channel: %v", got)
	}
}

func TestAdminDisconnectsAUser(t *testing.T) {
	s := chatserver.Serve(t)
	a1, a2, bob := s.Dial("ana/x y"), s.Dial("ana/x y"), s.Dial("bob")
	for i, want := range []string{`{"closed":2}`, `{"closed":0}`} {
		resp, body := s.Request("POST", "/users/ana%2Fx%20y/disconnect", s.Token("admin"), "")
		if resp.StatusCode != 200 || strings.TrimSpace(body) != want {
			t.Errorf("call %d: %d %s, want %s", i, resp.StatusCode, body, want)
		}
		if i == 0 {
			a1.WantClose(4002)
			a2.WantClose(4002)
			wstest.Eventually(t, "her sockets to end", func() bool { return s.Stats().Sockets == 1 })
		}
	}
	s.Publish("", "still there")
	bob.WantText("still there")
}

// middleware hides the server's own ResponseWriter, so that net/http does not learn from
// http.MaxBytesReader that a body was too large.
type middleware struct{ http.ResponseWriter }

func (m middleware) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// A client that was told to continue still sends when the 413 is on its way. The
// connection must not be reset meanwhile: the client would lose the answer.
func TestABodyThatIsFarTooLargeIsAnswered(t *testing.T) {
	s := serveLogin(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(middleware{w}, r)
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s",
		1<<30, strings.Repeat("x", 16<<10))
	in := bufio.NewReader(conn)
	for _, want := range []int{http.StatusContinue, http.StatusRequestEntityTooLarge} {
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%v, %v, want %d", resp, err, want)
		}
	}
	for range 5 {
		<-time.After(10 * time.Millisecond)
		if _, err := conn.Write(make([]byte, 16<<10)); err != nil {
			t.Fatal(err)
		}
	}
}
