package main

import (
	"bytes"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

func TestWhatCannotStartSaysWhyInOneLine(t *testing.T) {
	t.Parallel()
	nowhere := filepath.Join(t.TempDir(), "missing", "history.db")
	// No program listens on port 1.
	tests := map[string]struct {
		args []string
		env  []string
		code int
		want string
	}{
		"no such registry":         {[]string{"-registry", "nats://:hunter2@localhost"}, nil, 2, "-registry nats: must be memory or the URL of a Redis"},
		"no such history":          {[]string{"-history", "mysql://root:hunter2@localhost"}, nil, 2, "-history mysql: must be memory"},
		"no URL":                   {[]string{"-registry", "redis:hunter2@localhost"}, nil, 2, "-registry redis: not a URL such as redis://"},
		"a slash in a password":    {[]string{"-registry", "redis://:hunter2/@localhost"}, nil, 2, "-registry redis: not a URL"},
		"a question mark in one":   {[]string{"-registry", "redis://chat:1?hunter2@localhost"}, nil, 2, "-registry redis: not a URL"},
		"a hash in one":            {nil, []string{"CHATD_REGISTRY=redis://chat:1#hunter2@localhost"}, 2, "-registry redis: not a URL"},
		"a percent in one":         {nil, []string{"CHATD_HISTORY=postgres://chat:hunter2%@localhost/chat"}, 2, "-history postgres: not a URL"},
		"an unknown parameter":     {[]string{"-registry", "redis://:hunter2@localhost:1?colour=red"}, nil, 2, "-registry redis://localhost:1: redis: unexpected option: colour"},
		"a sentinel's, unknown":    {[]string{"-registry", "redis+sentinel://localhost:1?master_name=m&password=hunt&er2=x"}, nil, 2, "-registry redis+sentinel://localhost:1: a parameter is invalid (not shown"},
		"sentinels of whom":        {[]string{"-registry", "redis+sentinel://localhost:1"}, nil, 2, "needs ?master_name="},
		"not a database":           {[]string{"-registry", "redis://localhost/chat"}, nil, 2, `invalid database number: "chat"`},
		"memory between nodes":     {[]string{"-registry", "redis://localhost:1", "-history", "memory"}, nil, 2, "-history memory: nodes that share -registry redis need a common history"},
		"no history between nodes": {[]string{"-registry", "redis://localhost:1", "-history", "off"}, nil, 2, "-history off: nodes that share"},
		"a file between nodes":     {[]string{"-registry", "redis://localhost:1", "-history", "sqlite:x.db"}, nil, 2, "-history sqlite: nodes that share"},
		"redis without Redis":      {[]string{"-history", "redis"}, nil, 2, "-history redis needs the URL of a Redis in -registry"},
		"another Redis":            {[]string{"-registry", "redis://localhost:1", "-history", "redis://:hunter2@elsewhere"}, nil, 2, "-history redis: must be the word redis only"},
		"no file":                  {[]string{"-history", "sqlite:"}, nil, 2, "needs a file"},
		"not a flag":               {[]string{"registry", "redis://:hunter2@localhost"}, nil, 2, `unexpected argument "registry"`},
		"no flag at all":           {[]string{"redis://:hunter2@localhost"}, nil, 2, `unexpected argument "redis:REDACTED"`},

		"nobody there":        {[]string{"-registry", "redis://:hunter2@127.0.0.1:1"}, nil, 1, "connecting to -registry redis://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
		"no cluster there":    {[]string{"-registry", "redis+cluster://:hunter2@127.0.0.1:1?addr=127.0.0.1:2"}, nil, 1, "connecting to -registry redis+cluster://127.0.0.1:1: "},
		"no sentinel there":   {[]string{"-registry", "redis+sentinel://:hunter2@127.0.0.1:1?master_name=chat"}, nil, 1, "connecting to -registry redis+sentinel://127.0.0.1:1: asking the Sentinel at 127.0.0.1:1 for the master: dial tcp 127.0.0.1:1: connect: connection refused"},
		"no database there":   {nil, []string{"CHATD_HISTORY=postgres://chat:hunter2@127.0.0.1:1/chat"}, 1, "opening -history postgres://127.0.0.1:1: "},
		"no directory for it": {[]string{"-history", "sqlite:" + nowhere}, nil, 2, "opening -history sqlite:" + nowhere + ": "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := program(t).RunToEnd(t, test.env, append([]string{"-addr", "127.0.0.1:0"}, test.args...)...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.HasPrefix(stderr, "chatd-cluster: ") || !strings.Contains(stderr, test.want) ||
				strings.Count(stderr, "\n") != 1 || stdout != "" {
				t.Errorf("stderr %q, want one line with %q", stderr, test.want)
			}
			if strings.Contains(stderr, "hunter2") || strings.Contains(stderr, "er2") {
				t.Errorf("the password is in %q", stderr)
			}
		})
	}
}

// chatd's own tests cover the flags that both programs have.
func TestAMistakeInAnyFlagOfItsOwnEndsWith2AndNamesIt(t *testing.T) {
	t.Parallel()
	redis := chatdtest.StartRedis(t)
	registry, dir := []string{"-registry", redis.RedisURL()}, t.TempDir()
	type mistake struct {
		value, want string
		args        []string // further arguments
	}
	mistakes := map[string][]mistake{
		"registry":      {{"redis:x", "not a URL", nil}, {"nats://localhost", "must be memory or the URL of a Redis", nil}, {"redis://localhost?colour=red", "colour", nil}},
		"history":       {{"sqlite:" + dir, dir, nil}, {"postgres://localhost/chat?sslmode=perhaps", "sslmode", nil}, {"postgres://localhost/chat?pool_size=x&connect_timeout=y", "connect_timeout", nil}, {"redis", "in -registry", nil}},
		"history-age":   {{"10ms", "for at least a second", []string{"-history", "sqlite:" + dir + "/history.db"}}, {"10us", "for at least a millisecond", registry}},
		"redis-prefix":  {{"{chat}:", "brace", registry}, {"a{b", "brace", nil}},
		"lease":         {{"10ms", "less than 1s", registry}, {"soon", "not a duration", nil}, {"-15s", "not more than zero", nil}},
		"redis-durable": {{"perhaps", "parse error", nil}},
	}
	listed := regexp.MustCompile(`(?m)^  -([a-z-]+)`)
	var plain bytes.Buffer
	daemon.Main(t.Context(), daemon.Program{Name: "chatd"}, daemon.Process{Args: []string{"-help"}, Stdout: &plain})
	help, _, _ := program(t).RunToEnd(t, nil, "-help")
	for _, m := range listed.FindAllStringSubmatch(help, -1) {
		if !slices.Contains(listed.FindAllString(plain.String(), -1), m[0]) && len(mistakes[m[1]]) == 0 {
			t.Errorf("no mistake in -%s is tested", m[1])
		}
	}
	for name, list := range mistakes {
		for _, m := range list {
			variable := "CHATD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
			for how, set := range map[string]struct{ env, args []string }{
				"flag":     {nil, []string{"-" + name + "=" + m.value}},
				"variable": {[]string{variable + "=" + m.value}, nil},
			} {
				t.Run(name+" "+m.value+" by "+how, func(t *testing.T) {
					t.Parallel()
					args := append(slices.Concat([]string{"-addr", "127.0.0.1:0"}, m.args), set.args...)
					stdout, stderr, code := program(t).RunToEnd(t, set.env, args...)
					if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 ||
						!strings.Contains(stderr, "-"+name) || !strings.Contains(stderr, m.want) {
						t.Errorf("exit code %d, stderr %q, want 2 and one line with -%s and %q", code, stderr, name, m.want)
					}
					if regexp.MustCompile(`\bWith[A-Z]`).MatchString(stderr) {
						t.Errorf("a Go option is named: %s", stderr)
					}
				})
			}
		}
	}
}

func TestAWrongPasswordIsSaidWithoutRepeatingIt(t *testing.T) {
	t.Parallel()
	redis, postgres := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	for flag, url := range map[string]string{"registry": redis.RedisURL(), "history": postgres.PostgresURL()} {
		wrong := strings.Replace(url, chatdtest.Password, "not-it", 1)
		stdout, stderr, code := program(t).RunToEnd(t, nil, "-addr", "127.0.0.1:0", "-"+flag, wrong)
		if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "-"+flag) || stdout != "" {
			t.Errorf("%s: exit code %d, stderr %q", flag, code, stderr)
		}
		if strings.Contains(stderr, "not-it") {
			t.Errorf("the password is in %q", stderr)
		}
	}
}

func TestWithoutAKeyInCommonNodesAreWarnedOf(t *testing.T) {
	t.Parallel()
	redis := chatdtest.StartRedis(t)
	d := program(t).Start(t, nil, "-plaintext", "-registry", redis.RedisURL(), "-secret-file", "")
	if !strings.Contains(d.Logged(), "other nodes refuse them") {
		t.Errorf("no warning in:\n%s", d.Logged())
	}
}

func TestInMemoryItIsChatd(t *testing.T) {
	t.Parallel()
	d := program(t).Start(t, nil, "-plaintext")
	admin := d.Token("admin")
	s := d.Connect(admin)
	s.Want("welcome")
	post(t, d, admin, "hello")
	s.Want("message")
	if status, body := d.Request("GET", "/readyz", "", ""); status != 200 || body != "ok\n" {
		t.Errorf("readyz: %d %s", status, body)
	}
}

func TestARedisThatEvictsIsRefusedInOneLine(t *testing.T) {
	t.Parallel()
	redis := chatdtest.StartRedis(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	_, stderr, code := program(t).RunToEnd(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()}, "-plaintext", "-addr", "127.0.0.1:0",
		"-users", chatdtest.WriteFile(t, "users", chatdtest.Users), "-secret-file", chatdtest.WriteFile(t, "secret", chatdtest.Secret))
	wantLastLine(t, stderr, code, "set maxmemory-policy noeviction", "allkeys-lru")
}

// TestARedisThatRefusesIsNamedAtStart starts the program with servers that reject it.
func TestARedisThatRefusesIsNamedAtStart(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args    []string // of the server
		command string   // to the server before the start
		want    []string // in the last line: what to change, and the error of Redis
	}{
		"full":                {nil, "CONFIG SET maxmemory 1", []string{"raise its maxmemory", "OOM"}},
		"a replica":           {[]string{"--replicaof", "127.0.0.1", "1"}, "", []string{"connect to its primary", "READONLY"}},
		"a missing command":   {nil, "ACL SETUSER default -evalsha", []string{"lacks a permission", "evalsha", "ACL SETUSER"}},
		"missing keys":        {nil, "ACL SETUSER default resetkeys ~other:*", []string{"lacks a permission", "~test:*"}},
		"missing pub/sub":     {nil, "ACL SETUSER default resetchannels &other:*", []string{"lacks a permission", "&test:*"}},
		"a missing SUBSCRIBE": {[]string{"--rename-command", "SUBSCRIBE", ""}, "", []string{"rename-command", "unknown command 'subscribe'"}},
		"clients":             {nil, "CONFIG SET maxclients 1", []string{"maxclients"}},
	}
	for name, tt := range tests {
		for _, history := range []string{"redis", "postgres"} {
			t.Run(name+" "+history, func(t *testing.T) {
				t.Parallel()
				env := []string{}
				if history == "postgres" {
					if name != "full" && name != "a missing command" {
						return // there is no difference
					}
					env = append(env, "CHATD_HISTORY="+chatdtest.StartPostgres(t).PostgresURL())
				}
				redis := chatdtest.StartRedis(t, tt.args...)
				if tt.command != "" {
					if err := redis.Ask(tt.command, "+OK"); err != nil {
						t.Fatal(err)
					}
				}
				if name == "clients" { // a connection that stays open
					conn, err := net.Dial("tcp", redis.Addr)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
				}
				env = append(env, "CHATD_REGISTRY="+redis.RedisURL())
				_, stderr, code := program(t).RunToEnd(t, env, "-plaintext", "-addr", "127.0.0.1:0", "-redis-prefix", "test:",
					"-users", chatdtest.WriteFile(t, "users", chatdtest.Users), "-secret-file", chatdtest.WriteFile(t, "secret", chatdtest.Secret))
				wantLastLine(t, stderr, code, append(tt.want, "-registry redis://"+redis.Addr+": ")...)
				if strings.Contains(stderr, chatdtest.Password) || strings.Contains(stderr, "not connected yet") {
					t.Errorf("stderr:\n%s", stderr)
				}
			})
		}
	}
}

// TestASentinelThatDoesNotNameTheMasterIsNamed starts the program with Sentinels that do
// not know the master.
func TestASentinelThatDoesNotNameTheMasterIsNamed(t *testing.T) {
	t.Parallel()
	redis := chatdtest.StartRedis(t)
	sentinel := chatdtest.StartSentinel(t, redis)
	for name, tt := range map[string]struct{ url, want string }{
		"another name":    {"redis+sentinel://" + sentinel.Addr + "?master_name=chap&password=" + chatdtest.Password, `watches no master called "chap"`},
		"no Sentinel":     {"redis+sentinel://:" + chatdtest.Password + "@" + redis.Addr + "?master_name=chat", "is not a Sentinel"},
		"Redis, locked":   {"redis+sentinel://" + redis.Addr + "?master_name=chat", "is not a Sentinel"},
		"a wrong place":   {"redis+sentinel://:" + chatdtest.Password + "@" + sentinel.Addr + "?master_name=chat", "Redis needs a password"}, // there the password is the Sentinel's
		"a wrong address": {"redis+sentinel://127.0.0.1:1?addr=127.0.0.1:2&master_name=chat", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, code := program(t).RunToEnd(t, []string{"CHATD_REGISTRY=" + tt.url}, "-plaintext", "-addr", "127.0.0.1:0")
			wantLastLine(t, stderr, code, "-registry redis+sentinel://", tt.want)
			if strings.Contains(stderr, chatdtest.Password) {
				t.Errorf("the password is in %q", stderr)
			}
		})
	}
}

// TestReadinessNamesTheCause breaks the backends of a running node.
func TestReadinessNamesTheCause(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ command, want string }{
		"full":         {"CONFIG SET maxmemory 1", `not ready.*raise its maxmemory.*OOM`},
		"a replica":    {"REPLICAOF 127.0.0.1 1", `not ready.*connect to its primary.*READONLY`},
		"a permission": {"ACL SETUSER default -evalsha", `not ready.*lacks a permission.*evalsha`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := chatdtest.StartRedis(t)
			d := program(t).Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()}, "-plaintext", "-lease", "1s")
			if err := redis.Ask(tt.command, "+OK"); err != nil {
				t.Fatal(err)
			}
			log := regexp.MustCompile(tt.want)
			wstest.Eventually(t, "the log to name the cause", func() bool {
				_, _ = d.Request("GET", "/readyz", "", "")
				return log.MatchString(d.Logged())
			})
			if strings.Contains(d.Logged(), chatdtest.Password) {
				t.Error("the password is in the log")
			}
		})
	}
}

func TestNodesWithDifferentHistoriesDoNotServe(t *testing.T) {
	t.Parallel()
	postgres := chatdtest.StartPostgres(t)
	for name, where := range map[string]struct{ first, second string }{
		"Redis first":      {"redis", postgres.PostgresURL()},
		"PostgreSQL first": {postgres.PostgresURL(), "redis"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := "CHATD_REGISTRY=" + chatdtest.StartRedis(t).RedisURL()
			first := program(t).Start(t, []string{registry, "CHATD_HISTORY=" + where.first}, "-plaintext", "-lease", "1s")
			second := []string{registry, "CHATD_HISTORY=" + where.second}
			args := []string{"-plaintext", "-lease", "1s", "-addr", "127.0.0.1:0",
				"-users", chatdtest.WriteFile(t, "users", chatdtest.Users), "-secret-file", chatdtest.WriteFile(t, "secret", chatdtest.Secret)}
			_, stderr, code := program(t).RunToEnd(t, second, args...)
			wantLastLine(t, stderr, code, `"redis"`, "all nodes need the same history")
			if strings.Contains(stderr, "listening on") {
				t.Errorf("it served:\n%s", stderr)
			}

			// The new history may begin when the lease of the other node has expired.
			first.Kill()
			wstest.Eventually(t, "the other history to begin", func() bool {
				d := program(t).Begin(t, second, args...)
				defer d.Kill()
				wstest.Eventually(t, "it to serve or to end", func() bool {
					return strings.Contains(d.Logged(), "listening on") || strings.Contains(d.Logged(), "chatd-cluster: ")
				})
				return strings.Contains(d.Logged(), "listening on")
			})
		})
	}
}

// wantLastLine checks that the program ended with code 1, and why.
func wantLastLine(t *testing.T, stderr string, code int, wants ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := lines[len(lines)-1]
	if code != 1 {
		t.Errorf("exit code %d, want 1:\n%s", code, stderr)
	}
	for _, want := range wants {
		if !strings.Contains(last, want) {
			t.Errorf("the last line says nothing of %s: %s", want, last)
		}
	}
}
