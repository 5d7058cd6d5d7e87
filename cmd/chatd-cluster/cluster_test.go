package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// pair is two nodes that share a Redis.
type pair struct {
	one, two *chatdtest.Process
	admin    string // the token of the admin
	user     string
}

func startPair(t *testing.T, env []string, args ...string) pair {
	t.Helper()
	prog := program(t)
	args = append([]string{"-plaintext"}, args...)
	p := pair{one: prog.Start(t, env, args...), two: prog.Start(t, env, args...)}
	p.admin, p.user = p.one.Token("admin"), p.two.Token("user")
	return p
}

func TestTwoNodesAreOneService(t *testing.T) {
	t.Parallel()
	redis := chatdtest.StartRedis(t)
	for _, history := range []string{"redis", "postgres"} {
		t.Run(history, func(t *testing.T) {
			t.Parallel()
			where := history
			if history == "postgres" {
				where = chatdtest.StartPostgres(t).PostgresURL()
			}
			p := startPair(t, []string{"CHATD_REGISTRY=" + redis.RedisURL(), "CHATD_HISTORY=" + where},
				"-redis-prefix", "test:"+history+":")
			here, there := p.one.Connect(p.admin), p.two.Connect(p.user)
			here.Want("welcome")
			there.Want("welcome")

			for i := range 20 {
				want := fmt.Sprintf("dinner %d is ready", i)
				from := []*chatdtest.Process{p.one, p.two}[i%2]
				posted := post(t, from, p.admin, want)
				for name, s := range map[string]*wstest.Client{"here": here, "there": there} {
					if got := s.Want("message"); got.Content != want || got.ID != posted.ID || got.Sender != "admin" {
						t.Fatalf("%s gets %+v, want %s %s", name, got, posted.ID, want)
					}
				}
			}

			type users struct {
				Users []struct {
					Username, Role string
					Connections    int
				}
			}
			p.one.Connect(p.user).Want("welcome")
			want := decode[users](t, `{"users":[{"username":"admin","role":"admin","connections":1},{"username":"user","role":"user","connections":2}]}`)
			for name, d := range map[string]*chatdtest.Process{"one": p.one, "two": p.two} {
				status, body := d.Request(http.MethodGet, "/users/connected", p.admin, "")
				if diff := cmp.Diff(want, decode[users](t, body)); diff != "" || status != http.StatusOK {
					t.Errorf("connected, by node %s: status %d (-want +got):\n%s", name, status, diff)
				}
			}

			status, body := p.one.Request(http.MethodPost, "/users/user/disconnect", p.admin, "")
			if status != http.StatusOK || !strings.Contains(body, `"closed":2`) {
				t.Errorf("disconnecting: status %d: %s", status, body)
			}
			if code := there.CloseCode(); code != 4002 {
				t.Errorf("the user's socket at the other node closed with %d, want 4002", code)
			}
		})
	}
}

func TestNodesMeetInEveryKindOfRedis(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(t *testing.T) (url string){
		"with TLS": func(t *testing.T) string {
			cert, key, _ := chatdtest.Certificate(t)
			addr := chatdtest.FreeAddr(t)
			chatdtest.StartRedis(t, "--tls-port", port(addr), "--tls-auth-clients", "no",
				"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert)
			return "rediss://:" + chatdtest.Password + "@" + addr + "?skip_verify=true"
		},
		"a Cluster": func(t *testing.T) string {
			// One node has them all.
			redis := chatdtest.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", port(chatdtest.FreeAddr(t)))
			if err := redis.Ask("CLUSTER ADDSLOTSRANGE 0 16383", "+OK"); err != nil {
				t.Fatal(err)
			}
			wstest.Eventually(t, "the cluster to serve", func() bool { return redis.Ask("SET x y", "+OK") == nil })
			return "redis+cluster://:" + chatdtest.Password + "@" + redis.Addr
		},
		"what Sentinels watch": func(t *testing.T) string {
			sentinel := chatdtest.StartSentinel(t, chatdtest.StartRedis(t))
			return "redis+sentinel://" + sentinel.Addr + "?master_name=chat&password=" + chatdtest.Password
		},
	}
	for name, where := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPair(t, []string{"CHATD_REGISTRY=" + where(t)}, "-history-count", "2")
			there := p.two.Connect(p.user)
			there.Want("welcome")
			for _, text := range []string{"one", "two", "three"} {
				post(t, p.one, p.admin, text)
				if got := there.Want("message").Content; got != text {
					t.Errorf("got %s, want %s", got, text)
				}
			}
			_, body := p.two.Request(http.MethodGet, "/messages", p.user, "")
			var kept []string
			for _, m := range decode[struct{ Messages []wstest.Event }](t, body).Messages {
				kept = append(kept, m.Content)
			}
			if diff := cmp.Diff([]string{"two", "three"}, kept); diff != "" {
				t.Errorf("history of two messages (-want +got):\n%s", diff)
			}
			for _, d := range []*chatdtest.Process{p.one, p.two} {
				d.Signal(syscall.SIGTERM)
				if strings.Contains(d.Logged(), chatdtest.Password) {
					t.Error("the password is in the log")
				}
			}
			if code := p.one.ExitCode(); code != 0 { // there are no clients
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func port(addr string) string {
	_, port, _ := strings.Cut(addr, ":")
	return port
}

func TestUsersOfAKilledNodeLeaveWithinTheLease(t *testing.T) {
	t.Parallel()
	redis := chatdtest.StartRedis(t)
	p := startPair(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()}, "-lease", "2s")
	here := p.one.Connect(p.admin)
	here.Want("welcome")
	p.two.Connect(p.user).Want("welcome")
	for here.Want("user_joined").Username != "user" {
	}
	p.two.Kill()
	if got := here.Want("user_left").Username; got != "user" {
		t.Errorf("%s left", got)
	}
	_, body := p.one.Request(http.MethodGet, "/users/connected", p.admin, "")
	if !strings.Contains(body, `"count":1`) {
		t.Errorf("connected: %s", body)
	}
}

// A disconnect closes every socket that exists, also on a node that is halted.
func TestADisconnectReachesAHaltedNodeWhenItGoesOn(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	tests := map[string]struct {
		whenGivenUp bool   // after the node's lease has expired
		closed      string // in the answer
	}{
		"while it is listed":   {false, `{"closed":1}`},
		"when it was given up": {true, `{"closed":0}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := chatdtest.StartRedis(t)
			p := startPair(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()}, "-lease", lease.String())
			admin, user := p.one.Connect(p.admin), p.two.Connect(p.user)
			admin.Want("welcome")
			user.Want("welcome")
			for admin.Want("user_joined").Username != "user" {
			}
			p.two.Signal(syscall.SIGSTOP)
			halted := time.Now()
			disconnect := func() {
				t.Helper()
				status, body := p.one.Request(http.MethodPost, "/users/user/disconnect", p.admin, "")
				if status != http.StatusOK || strings.TrimSpace(body) != tt.closed {
					t.Errorf("disconnecting: status %d: %s, want %s", status, body, tt.closed)
				}
			}
			if !tt.whenGivenUp {
				disconnect()
			}
			admin.Want("user_left")
			<-time.After(time.Until(halted.Add(4*lease + lease/2)))
			if tt.whenGivenUp {
				disconnect()
			}
			p.two.Signal(syscall.SIGCONT)
			if code := user.CloseCode(); code != 4002 {
				t.Errorf("the socket closed with %d, want 4002", code)
			}
			// No node announced that the user joined again.
			post(t, p.one, p.admin, "end")
			for {
				e, err := admin.NextEvent()
				if err != nil {
					t.Fatal(err)
				}
				if e.Type == "user_joined" {
					t.Errorf("got %+v", e)
				}
				if e.Content == "end" {
					break
				}
			}
			again := p.two.Connect(p.user) // the token is still valid
			again.Want("welcome")
		})
	}
}

func TestHistoryOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T) []string{
		"redis": func(t *testing.T) []string {
			return []string{"CHATD_REGISTRY=" + chatdtest.StartRedis(t).RedisURL()}
		},
		"sqlite": func(t *testing.T) []string {
			return []string{"CHATD_HISTORY=sqlite:" + filepath.Join(t.TempDir(), "history.db")}
		},
		"postgres": func(t *testing.T) []string {
			return []string{"CHATD_HISTORY=" + chatdtest.StartPostgres(t).PostgresURL()}
		},
	}
	for name, backends := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := backends(t)
			prog := program(t)
			first := prog.Start(t, env, "-plaintext")
			admin := first.Token("admin")
			seen := post(t, first, admin, "one")
			post(t, first, admin, "two")
			first.Signal(syscall.SIGTERM)
			if code := first.ExitCode(); code != 0 {
				t.Fatalf("exit code %d", code)
			}

			second := prog.Start(t, env, "-plaintext")
			post(t, second, admin, "three")
			s := second.Connect(admin, "since", seen.ID)
			if e := s.Want("welcome"); e.Recovered == nil || !*e.Recovered {
				t.Errorf("welcome says %+v, want recovered", e)
			}
			for _, want := range []string{"two", "three"} {
				if got := s.Want("message").Content; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			_, body := second.Request(http.MethodGet, "/messages", admin, "")
			var got []string
			for _, m := range decode[struct{ Messages []wstest.Event }](t, body).Messages {
				got = append(got, m.Content)
			}
			if diff := cmp.Diff([]string{"one", "two", "three"}, got); diff != "" {
				t.Errorf("history (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadinessFollowsTheBackends(t *testing.T) {
	t.Parallel()
	redis, postgres := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	d := program(t).Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL(), "CHATD_HISTORY=" + postgres.PostgresURL()}, "-plaintext")
	admin := d.Token("admin")
	s := d.Connect(admin)
	s.Want("welcome")
	ready := func() (status int, body string) { return d.Request(http.MethodGet, "/readyz", "", "") }
	isReady := func() bool { status, _ := ready(); return status == http.StatusOK }
	red := func(part string) func() bool {
		return func() bool {
			status, body := ready()
			return status == http.StatusServiceUnavailable && strings.Contains(body, `"not ready: `+part+`"`) &&
				!strings.Contains(body, "127.0.0.1")
		}
	}
	wstest.Eventually(t, "the node to be ready", isReady)

	redis.Signal(syscall.SIGSTOP)
	wstest.Eventually(t, "/readyz to report the registry", red("registry"))
	if status, _ := d.Request(http.MethodGet, "/healthz", "", ""); status != http.StatusOK {
		t.Errorf("healthz while Redis is stopped: status %d", status)
	}
	if status, body := d.Request(http.MethodPost, "/messages", admin, `{"content":"lost"}`); status != http.StatusServiceUnavailable {
		t.Errorf("posting while Redis is stopped: status %d: %s", status, body)
	}
	redis.Signal(syscall.SIGCONT)
	wstest.Eventually(t, "the node to be ready again", isReady)

	postgres.End()
	wstest.Eventually(t, "/readyz to report the history", red("history"))
	postgres.Begin()
	wstest.Eventually(t, "the node to be ready once more", isReady)

	// The socket stayed open all the time.
	post(t, d, admin, "all is well")
	for got := ""; got != "all is well"; { // "lost" may have been stored
		got = s.Want("message").Content
	}
}

func TestMetricsAreOnTheDebugAddress(t *testing.T) {
	t.Parallel()
	redis := chatdtest.StartRedis(t)
	d := program(t).Start(t, nil, "-plaintext", "-debug-addr", "127.0.0.1:0", "-registry", redis.RedisURL())
	admin := d.Token("admin")
	s := d.Connect(admin)
	s.Want("welcome")
	post(t, d, admin, "dinner is ready")
	s.Want("message")

	status, body := d.Request(http.MethodGet, d.Debug+"/metrics", "", "")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	for _, want := range []string{
		"chat_sockets 1", "chat_users 1", "chat_published_messages_total 1",
		"chat_publish_duration_seconds_count 1", "chat_fanout_duration_seconds_count 1",
		`chat_port_errors_total{port="registry",reason="timeout"} 0`,
		`chat_logins_total{result="ok"} 1`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	for _, foreign := range []string{"go_goroutines ", "process_open_fds ", "go_build_info{"} {
		if !strings.Contains(body, "\n"+foreign) {
			t.Errorf("no %s", foreign)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "chat_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if status, _ := d.Request(http.MethodGet, "/metrics", "", ""); status != http.StatusNotFound {
		t.Errorf("at the main address: status %d", status)
	}
	_, vars := d.Request(http.MethodGet, d.Debug+"/debug/vars", "", "")
	if strings.Contains(vars, chatdtest.Password) || !strings.Contains(vars, "redis:REDACTED") {
		t.Errorf("variables with a password, or without a command line: %s", vars)
	}
	if strings.Contains(d.Logged(), chatdtest.Password) {
		t.Error("a password is in the log")
	}
}
