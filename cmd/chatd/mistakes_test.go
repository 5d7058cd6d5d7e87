package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
)

// goOption is how a Go program names what a person who starts chatd calls a flag.
var goOption = regexp.MustCompile(`\bWith[A-Z]`)

// A mistake in a setting, or in a file that one names, does not go away by starting
// again: it ends the program with 2, which supervisors do not restart, and with one
// line that names the flag and what was wrong with it.
func TestAMistakeInAnyFlagEndsWith2AndNamesIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	cert, key := certificate(t, "one")
	_, otherKey := certificate(t, "two")
	none, users := write(t, "empty", ""), write(t, "users", chatdtest.Users)
	type mistake struct {
		value, want string
		args        []string // besides
	}
	// Of every flag: that one is missing here is found below.
	mistakes := map[string][]mistake{
		"addr":                    {{"8443", "not host:port", nil}, {"localhost:70000", `"70000" is not a port`, nil}, {"localhost:", `"" is not a port`, nil}, {"bücher:0", "IA5String", nil}},
		"plaintext":               {{"perhaps", "parse error", nil}},
		"tls-cert":                {{missing, missing, []string{"-tls-key", key}}, {none, none, []string{"-tls-key", key}}, {dir, dir, []string{"-tls-key", key}}, {cert, "needs -tls-key", nil}},
		"tls-key":                 {{key, "needs -tls-cert", nil}, {missing, missing, []string{"-tls-cert", cert}}, {otherKey, otherKey, []string{"-tls-cert", cert}}},
		"acme-domain":             {{"https://chat.example.com", `"https://chat.example.com" is not a domain`, nil}, {"localhost", `"localhost" is not a domain`, nil}, {"192.0.2.1", "is not a domain", nil}, {" , ", "no domain", nil}},
		"acme-cache":              {{filepath.Join(none, "cache"), none, []string{"-acme-domain", "chat.example.com"}}, {dir, "needs -acme-domain", nil}},
		"users":                   {{missing, missing, nil}, {dir, dir, nil}, {write(t, "users", "ana:no-hash\n"), "line 1", nil}},
		"secret-file":             {{missing, missing, nil}, {dir, dir, nil}, {"/dev/zero", "/dev/zero", nil}, {none, "at least 32", nil}, {cert, "public key", nil}},
		"token-ttl":               {{"soon", "not a duration", nil}, {"-1m", "not more than zero", nil}},
		"origins":                 {{"https://app.example.com/", `"https://app.example.com/"`, nil}, {"example.com", `"example.com"`, nil}, {"https://good.example.com,https://*", `"https://*"`, nil}},
		"page":                    {{"perhaps", "parse error", nil}},
		"heartbeat":               {{"0s", "not more than zero", nil}, {"10", "not a duration", nil}},
		"pings":                   {{"perhaps", "parse error", nil}},
		"trusted-proxies":         {{"10.0.0.0/8,proxy", `"proxy"`, nil}, {"10.0.0.0/33", `"10.0.0.0/33"`, nil}},
		"hsts":                    {{"soon", "not a duration", nil}, {"-1h", "not a duration", nil}, {"1500ms", "in seconds", nil}, {"1h", "exclude each other", []string{"-plaintext"}}},
		"drain-delay":             {{"-1s", "not a duration", nil}},
		"debug-addr":              {{"6060", "not host:port", nil}, {"localhost:x", `"x" is not a port`, nil}},
		"log-level":               {{"loud", "not debug, info, warn or error", nil}},
		"log-format":              {{"xml", "not text or json", nil}},
		"drain":                   {{"-1s", "not more than zero", nil}},
		"connections-per-address": {{"-1", "not a number, or 0 for no limit", nil}, {"many", "not a number", nil}},
		"waiting-connections":     {{"-1", "not a number, or 0 for no limit", nil}},
		"registry":                {{"redis://localhost", "use chatd-cluster", nil}},
		"history":                 {{"postgres://localhost/chat", "use chatd-cluster", nil}, {"papyrus", "papyrus", nil}},
		"history-count":           {{"-1", "not a number above zero", nil}, {"many", "not a number above zero", nil}, {"10", "keeps no messages", []string{"-history", "off"}}},
		"history-age":             {{"-1h", "not more than zero", nil}, {"1h", "keeps no messages", []string{"-history", "off"}}},
		"version":                 {{"perhaps", "parse error", nil}},
	}
	help, _, _ := runToEnd(t, nil, "", "-help")
	flags := regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(help, -1)
	for _, m := range flags {
		if len(mistakes[m[1]]) == 0 {
			t.Errorf("no mistake in -%s is tested", m[1])
		}
	}
	if len(flags) != len(mistakes) {
		t.Errorf("%d flags, mistakes in %d", len(flags), len(mistakes))
	}
	for name, list := range mistakes {
		for _, m := range list {
			variable := "CHATD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
			for how, set := range map[string]struct{ env, args []string }{
				"flag":     {nil, []string{"-" + name + "=" + m.value}},
				"variable": {[]string{variable + "=" + m.value}, nil},
			} {
				if how == "variable" && name == "version" {
					continue // there is none
				}
				t.Run(name+" "+m.value+" by "+how, func(t *testing.T) {
					t.Parallel()
					args := append([]string{"-debug-addr", "127.0.0.1:0"}, m.args...)
					if name != "addr" {
						args = append(args, "-addr", "127.0.0.1:0")
					}
					if name == "debug-addr" {
						args = args[2:]
					}
					if name != "users" { // none are made then, which takes time
						args = append(args, "-users", users)
					}
					stdout, stderr, code := runToEnd(t, set.env, "", append(args, set.args...)...)
					if code != 2 {
						t.Errorf("exit code %d, want 2", code)
					}
					wantOneLine(t, "chatd", stdout, stderr, m.want)
					named := strings.Contains(stderr, "-"+name) || name == "tls-key" && strings.Contains(stderr, "-tls-cert")
					if !named || goOption.MatchString(stderr) {
						t.Errorf("stderr %q, want -%s named, and no Go option", stderr, name)
					}
				})
			}
		}
	}
}

func wantOneLine(t *testing.T, program, stdout, stderr, want string) {
	t.Helper()
	if !strings.HasPrefix(stderr, program+": ") || !strings.Contains(stderr, want) ||
		strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") || stdout != "" {
		t.Errorf("stdout %q, stderr %q, want one line with %q", stdout, stderr, want)
	}
}

// What somebody else has to change, or what passes, is worth another try.
func TestWhatPassesEndsWith1(t *testing.T) {
	t.Parallel()
	taken := start(t, nil)
	port := strings.TrimPrefix(taken.URL, "https://")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a port that is taken":       {[]string{"-addr", port}, "-addr: listen tcp " + port + ": bind: address already in use"},
		"a debug port that is taken": {[]string{"-addr", "127.0.0.1:0", "-debug-addr", port}, "-debug-addr: listen tcp " + port},
		"an address of elsewhere":    {[]string{"-addr", "192.0.2.1:0"}, "-addr: listen tcp 192.0.2.1:0: "},
		"a taken port by variable":   {nil, "CHATD_ADDR (-addr): listen tcp " + port},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var env []string
			if test.args == nil {
				env = []string{"CHATD_ADDR=" + port}
			}
			stdout, stderr, code := runToEnd(t, env, "", append([]string{"-users", write(t, "users", chatdtest.Users)}, test.args...)...)
			if code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			wantOneLine(t, "chatd", stdout, stderr, test.want)
		})
	}
}
