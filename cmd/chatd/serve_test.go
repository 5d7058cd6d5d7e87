package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

func TestWithoutFlagsThereIsAllOneNeedsToChat(t *testing.T) {
	t.Parallel()
	d := startAlone(t, nil)
	admin := d.Connect(d.tokenWith("admin", d.invented("admin")))
	user := d.Connect(d.tokenWith("user", d.invented("user")))
	admin.Want("welcome")
	user.Want("welcome")

	admin.Say("dinner is ready")
	for name, s := range map[string]*wstest.Client{"admin": admin, "user": user} {
		if got := s.Want("message"); got.Sender != "admin" || got.Content != "dinner is ready" {
			t.Errorf("%s gets %+v", name, got)
		}
	}
	user.Say("me too")
	user.Want("error")

	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := d.get(d.URL + path); status != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	if status, _ := d.get(d.URL + "/nothing"); status != http.StatusNotFound {
		t.Errorf("an address where nothing is: %d", status)
	}
}

func TestServesAPageUnlessToldNotTo(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		env  []string
		args []string
		want int
	}{
		"by default":   {nil, nil, http.StatusOK},
		"by flag":      {nil, []string{"-page=false"}, http.StatusNotFound},
		"by variable":  {[]string{"CHATD_PAGE=false"}, nil, http.StatusNotFound},
		"the flag won": {[]string{"CHATD_PAGE=false"}, []string{"-page"}, http.StatusOK},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startAlone(t, test.env, test.args...)
			for _, path := range []string{"/", "/page.js", "/chat.js", "/chat.d.ts"} {
				if status, _ := d.get(d.URL + path); status != test.want {
					t.Errorf("%s: %d, want %d", path, status, test.want)
				}
			}
			if status, _ := d.get(d.URL + "/nothing"); status != http.StatusNotFound {
				t.Errorf("an address where nothing is: %d", status)
			}
			printed := strings.Contains(d.Printed(), "To chat in a browser, open https://localhost:")
			if printed != (test.want == http.StatusOK) {
				t.Errorf("the page is served: %v, and the banner says\n%s", test.want == http.StatusOK, d.Printed())
			}
		})
	}
}

func TestPasswordsAndKeyAreNewAtEachStart(t *testing.T) {
	t.Parallel()
	one, two := startAlone(t, nil), startAlone(t, nil)
	for _, user := range []string{"admin", "user"} {
		if one.invented(user) == two.invented(user) {
			t.Errorf("%s has the same password twice", user)
		}
	}
	if conn, status := two.Dial("/ws/chat?token=" + one.tokenWith("admin", one.invented("admin"))); conn != nil || status != http.StatusUnauthorized {
		t.Errorf("a token of another process: status %d", status)
	}
}

// The line of the banner is for a shell; so a shell runs it here.
func TestTheLoginOfTheBannerWorksInAShell(t *testing.T) {
	t.Parallel()
	chatdtest.Needs(t, "curl")
	d := startAlone(t, nil)
	line := d.AwaitPrinted(regexp.MustCompile(`^ *(TOKEN=\$\(curl .*\))$`))[1]
	// Port 0 has one port at either address, so that localhost works as printed.
	out, err := exec.CommandContext(within(t), "sh", "-c", line+`; printf %s "$TOKEN"`).Output()
	if err != nil {
		t.Fatal(err)
	}
	d.Connect(string(out)).Want("welcome")

	d.AwaitPrinted(regexp.MustCompile(
		`^ *npx -y wscat -n -c wss://localhost:\d+/ws/chat -H "Authorization: Bearer \$TOKEN"$`))
}

func TestListensWhereTheFlagSays(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		addr string
		want string
	}{
		"localhost": {"localhost:0", `^https://127\.0\.0\.1:\d+$`},
		"loopback":  {"127.0.0.1:0", `^https://127\.0\.0\.1:\d+$`},
		"anywhere":  {":0", `^https://\[::\]:\d+$`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, nil, "-addr", test.addr)
			if !regexp.MustCompile(test.want).MatchString(d.URL) {
				t.Errorf("listens on %s, want %s", d.URL, test.want)
			}
			u, err := url.Parse(d.URL)
			if err != nil {
				t.Fatal(err)
			}
			if status, _ := d.get("https://localhost:" + u.Port() + "/healthz"); status != http.StatusOK {
				t.Errorf("by the name of localhost: status %d", status)
			}
		})
	}
}

func TestFlagsWinOverTheEnvironment(t *testing.T) {
	t.Parallel()
	env := []string{
		"CHATD_PLAINTEXT=true",
		"CHATD_TOKEN_TTL=1h",
		"CHATD_LOG_FORMAT=json",
		"CHATD_DRAIN=", // empty is none
	}
	tests := map[string]struct {
		args       []string
		wantScheme string
		wantTTL    int
	}{
		"variables alone": {nil, "http", 3600},
		"one flag":        {[]string{"-token-ttl", "2m"}, "http", 120},
		"two flags":       {[]string{"-token-ttl", "2m", "-plaintext=false"}, "https", 120},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, env, test.args...)
			if scheme, _, _ := strings.Cut(d.URL, ":"); scheme != test.wantScheme {
				t.Errorf("listens on %s, want %s", d.URL, test.wantScheme)
			}
			resp, err := d.HTTP.PostForm(d.URL+"/login",
				url.Values{"username": {"user"}, "password": {chatdtest.Passwords["user"]}})
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := decode[answer](t, resp.Body); got.ExpiresIn != test.wantTTL || got.TokenType != "bearer" {
				t.Errorf("login: %s for %d s, want bearer for %d s", got.TokenType, got.ExpiresIn, test.wantTTL)
			}
		})
	}
}

func TestTheHistoryKeepsWhatItIsTold(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args       []string
		wantStatus int
		want       []string
	}{
		"by itself": {nil, http.StatusOK, []string{"one", "two", "three"}},
		"a count":   {[]string{"-history", "memory", "-history-count", "2"}, http.StatusOK, []string{"two", "three"}},
		"nothing":   {[]string{"-history", "off"}, http.StatusMethodNotAllowed, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, nil, test.args...)
			token := d.tokenOf("admin")
			admin := d.Connect(token)
			for _, text := range []string{"one", "two", "three"} {
				admin.Say(text)
				admin.Want("message")
			}
			status, body := d.get(d.URL + "/messages?token=" + token)
			page := decode[struct{ Messages []wstest.Event }](t, strings.NewReader(body))
			var got []string
			for _, m := range page.Messages {
				got = append(got, m.Content)
			}
			if diff := cmp.Diff(test.want, got); diff != "" || status != test.wantStatus {
				t.Errorf("status %d, messages (-want +got):\n%s", status, diff)
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	d := start(t, []string{"CHATD_ORIGINS=https://app.example.com, https://*.example.org"})
	token := d.tokenOf("user")
	for origin, want := range map[string]int{
		"https://app.example.com":  http.StatusSwitchingProtocols,
		"https://shop.example.org": http.StatusSwitchingProtocols,
		d.URL:                      http.StatusSwitchingProtocols,
		"https://evil.example.com": http.StatusForbidden,
	} {
		_, got := d.Dial("/ws/chat?token="+token, "Origin: "+origin)
		if got != want {
			t.Errorf("Origin %s: status %d, want %d", origin, got, want)
		}
	}
}

func TestATokenFarTooLongIsStillUnauthorized(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	long := strings.Repeat("x", 20<<10)
	for name, header := range map[string]string{
		"header":      wstest.Bearer(long),
		"subprotocol": "Sec-WebSocket-Protocol: chat.v1, bearer." + long,
	} {
		if _, status := d.Dial("/ws/chat", header); status != http.StatusUnauthorized {
			t.Errorf("%s: status %d", name, status)
		}
	}
	if _, status := d.Dial("/ws/chat?token=" + long); status != http.StatusUnauthorized {
		t.Errorf("query: status %d", status)
	}
}

func TestSecretsStayOutOfTheLogs(t *testing.T) {
	t.Parallel()
	d := startAlone(t, nil, "-log-level", "debug", "-log-format", "json", "-trusted-proxies", "127.0.0.0/8,::1")
	token := d.tokenWith("admin", d.invented("admin"))
	d.login("admin", "not-the-password")
	s, _ := d.Dial("/ws/chat?channel=lobby&token="+token, "X-Forwarded-For: 192.0.2.7")
	s.Want("welcome")
	s.Say("a secret between us all")
	s.Want("message")
	s.Close()
	d.Dial("/ws/chat?access_token=" + token + "x")

	d.Signal(syscall.SIGTERM)
	if code := d.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for name, secret := range map[string]string{
		"token": token, "password": d.invented("admin"), "wrong password": "not-the-password",
		"content": "a secret between us all",
	} {
		if strings.Contains(d.Logged(), secret) {
			t.Errorf("the %s is in the log", name)
		}
	}
	type line struct {
		Msg, Method, Path, Query, Client string
		Status                           int
	}
	var got []line
	for text := range strings.Lines(d.Logged()) {
		if chatdtest.Listening.MatchString(strings.TrimSpace(text)) {
			continue
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Errorf("not JSON: %s", text)
		}
		if l.Msg == "request" && l.Path == "/ws/chat" {
			got = append(got, l)
		}
	}
	want := []line{
		{"request", "GET", "/ws/chat", "channel=lobby&token=REDACTED", "192.0.2.7", http.StatusSwitchingProtocols},
		{"request", "GET", "/ws/chat", "REDACTED", "127.0.0.1", http.StatusUnauthorized},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests logged (-want +got):\n%s", diff)
	}
}

func TestVariablesForDebuggingAreOnTheDebugAddressAlone(t *testing.T) {
	t.Parallel()
	d := start(t, nil, "-debug-addr", "localhost:0")
	address := d.Await(regexp.MustCompile(`^debug vars on (http://127\.0\.0\.1:\d+/debug/vars)$`))[1]
	d.Connect(d.tokenOf("user")).Want("welcome")

	status, body := d.get(address)
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	vars := decode[struct {
		Chat     map[string]any
		Memstats map[string]any
		Cmdline  []string
	}](t, strings.NewReader(body))
	if len(vars.Chat) == 0 || len(vars.Memstats) == 0 || len(vars.Cmdline) == 0 {
		t.Errorf("chat, memstats or cmdline is missing in %s", body)
	}
	if status, _ := d.get(d.URL + "/debug/vars"); status != http.StatusNotFound {
		t.Errorf("at the main address: status %d", status)
	}
	if status, _ := d.get(strings.TrimSuffix(address, "/debug/vars") + "/users/connected"); status != http.StatusNotFound {
		t.Errorf("the service at the debug address: status %d", status)
	}
}

func TestSIGTERMSendsEverybodyAwayAndEnds(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			d := start(t, nil)
			admin, user := d.Connect(d.tokenOf("admin")), d.Connect(d.tokenOf("user"))
			admin.Want("welcome")
			user.Want("welcome")
			admin.Say("the last one")
			admin.Want("message")
			d.Signal(sig)
			user.Want("message")
			for name, s := range map[string]*wstest.Client{"admin": admin, "user": user} {
				if code := s.CloseCode(); code != 1001 {
					t.Errorf("%s closed with %d, want 1001", name, code)
				}
			}
			if code := d.ExitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestWhileDrainingHTTPAnswersAndASecondSignalEndsItAtOnce(t *testing.T) {
	t.Parallel()
	d := start(t, nil, "-drain", "1m")
	token := d.tokenOf("user")
	d.Connect(token) // never reads, and so keeps the server waiting
	d.Signal(syscall.SIGTERM)
	d.Await(regexp.MustCompile(`msg=draining`))

	for status := 0; status != http.StatusServiceUnavailable; { // soon
		status, _ = d.get(d.URL + "/readyz")
	}
	if status, _ := d.get(d.URL + "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: status %d", status)
	}
	if _, status := d.Dial("/ws/chat?token=" + token); status != http.StatusServiceUnavailable {
		t.Errorf("a new socket: status %d", status)
	}
	d.Signal(syscall.SIGINT) // a SIGTERM this early would count as the first one's double
	if code := d.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if !strings.HasSuffix(d.Logged(), "\nchatd: stopped at once by a second signal") {
		t.Errorf("last words: %s", d.Logged())
	}
}

func TestDrainingTakesNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	d := start(t, nil, "-drain", "300ms")
	d.Connect(d.tokenOf("user")) // never reads
	began := time.Now()
	d.Signal(syscall.SIGTERM)
	if code := d.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 5*time.Second { // the peer's time to answer a close
		t.Errorf("took %v", took)
	}
	if !strings.Contains(d.Logged(), "\nchatd: -drain 300ms was too short, open connections were cut: ") {
		t.Errorf("last words: %s", d.Logged())
	}
}

func TestWhatCannotStartSaysWhyInOneLine(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // after the cases
	port := taken.Addr().String()
	missing := t.TempDir() + "/missing"
	short := write(t, "secret", "far too short")
	cert, key := certificate(t, "one")
	_, otherKey := certificate(t, "two")
	users := write(t, "users", "ana:$2y$05$"+strings.Repeat("a", 53)+"\n# fine so far\nbob:plain-password\n")

	tests := map[string]struct {
		env  []string
		args []string
		code int
		want string
	}{
		"unknown flag":         {nil, []string{"-foo"}, 2, "-foo"},
		"stray argument":       {nil, []string{"serve"}, 2, `"serve"`},
		"flag without a value": {nil, []string{"-addr"}, 2, "-addr"},
		"bad address":          {nil, []string{"-addr", "8443"}, 2, "-addr: not host:port"},
		"bad duration":         {nil, []string{"-drain", "10"}, 2, "-drain: not a duration"},
		"no time":              {nil, []string{"-token-ttl", "0s"}, 2, "-token-ttl: not more than zero"},
		"bad level":            {nil, []string{"-log-level", "loud"}, 2, "-log-level"},
		"bad network":          {nil, []string{"-trusted-proxies", "10.0.0.0/8,proxy"}, 2, `"proxy"`},
		"bad variable":         {[]string{"CHATD_TOKEN_TTL=soon"}, nil, 2, `invalid value "soon" for CHATD_TOKEN_TTL`},
		"bad truth":            {[]string{"CHATD_PLAINTEXT=perhaps"}, nil, 2, "CHATD_PLAINTEXT"},
		"half a certificate":   {nil, []string{"-tls-cert", cert}, 2, "-tls-cert needs -tls-key"},
		"the other half":       {[]string{"CHATD_TLS_KEY=" + key}, nil, 2, "CHATD_TLS_KEY (-tls-key) needs -tls-cert"},
		"plain and TLS":        {[]string{"CHATD_PLAINTEXT=1"}, []string{"-tls-cert", cert, "-tls-key", key}, 2, "CHATD_PLAINTEXT (-plaintext) and -tls-cert exclude"},
		"two certificates":     {nil, []string{"-acme-domain", "example.com", "-tls-cert", cert, "-tls-key", key}, 2, "-acme-domain and -tls-cert exclude"},
		"a cache for nothing":  {nil, []string{"-acme-cache", "/tmp"}, 2, "-acme-cache needs -acme-domain"},
		"a registry elsewhere": {nil, []string{"-registry", "redis://:plain-password@localhost"}, 2, "chatd: -registry redis: chatd keeps everything in memory; use chatd-cluster ("},
		"a history elsewhere":  {[]string{"CHATD_HISTORY=postgres://chat:plain-password@localhost/chat"}, nil, 2, "chatd: -history postgres: chatd keeps everything in memory; use chatd-cluster ("},
		"a history unheard of": {nil, []string{"-history", "papyrus"}, 2, "-history papyrus: "},
		"limits of nothing":    {nil, []string{"-history", "off", "-history-count", "10"}, 2, "-history off keeps no messages"},
		"not a count":          {nil, []string{"-history-count", "0"}, 2, "-history-count: not a number above zero"},
		"bad origin":           {nil, []string{"-origins", "example.com"}, 2, `"example.com"`},
		"no users file":        {nil, []string{"-users", missing}, 2, missing},
		"bad users file":       {nil, []string{"-users", users}, 2, users + ": chat: invalid: users: line 3"},
		"no secret file":       {nil, []string{"-secret-file", missing}, 2, missing},
		"short secret":         {nil, []string{"-secret-file", short}, 2, "at least 32"},
		"endless secret":       {nil, []string{"-secret-file", "/dev/zero"}, 2, "/dev/zero"},
		"no certificate":       {nil, []string{"-tls-cert", missing, "-tls-key", key}, 2, missing},
		"another's key":        {nil, []string{"-tls-cert", cert, "-tls-key", otherKey}, 2, otherKey},
		"port taken":           {nil, []string{"-addr", port}, 1, port + ": bind: address already in use"},
		"localhost taken":      {nil, []string{"-addr", strings.Replace(port, "127.0.0.1", "localhost", 1)}, 1, "address already in use"},
		"debug port taken":     {nil, []string{"-addr", "localhost:0", "-debug-addr", port}, 1, "-debug-addr: "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := runToEnd(t, test.env, "", test.args...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.HasPrefix(stderr, "chatd: ") || !strings.Contains(stderr, test.want) ||
				strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") {
				t.Errorf("stderr %q, want one line with %q", stderr, test.want)
			}
			if strings.Contains(stderr, "plain-password") || stdout != "" {
				t.Errorf("says too much: %q %q", stdout, stderr)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		want string
	}{
		"help":         {[]string{"-help"}, "CHATD_TOKEN_TTL"},
		"h":            {[]string{"-h"}, "-tls-cert file"},
		"version":      {[]string{"-version"}, " go1."},
		"help on hash": {[]string{"hash", "-h"}, "-role"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A variable of that name is many an image's own, and no flag.
			stdout, stderr, code := runToEnd(t, []string{"CHATD_VERSION=1.2.3"}, "", test.args...)
			if code != 0 || stderr != "" || !strings.Contains(stdout, test.want) {
				t.Errorf("exit code %d, stderr %q, stdout %s", code, stderr, stdout)
			}
		})
	}
}

func TestSIGHUPWithNothingToReadAgainEnds(t *testing.T) {
	t.Parallel()
	d := startAlone(t, nil)
	d.Signal(syscall.SIGHUP)
	d.ExitCode()
	if ws, ok := d.End().Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGHUP {
		t.Errorf("ended with %v", d.End())
	}
}
