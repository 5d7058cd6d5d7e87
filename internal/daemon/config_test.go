package daemon

import (
	"bytes"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// process returns a Process with these variables and arguments.
func process(env map[string]string, args ...string) Process {
	return Process{
		Args:      args,
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Notify:    func(chan<- os.Signal, ...os.Signal) {},
	}
}

func TestEverySettingCanBeAFlagOrAVariable(t *testing.T) {
	// All flags; the test fails below if one is missing.
	values := map[string]string{
		"addr":            "example.com:99",
		"plaintext":       "true",
		"tls-cert":        "cert.pem",
		"tls-key":         "key.pem",
		"acme-domain":     "a.example.com, b.example.com",
		"acme-cache":      "/var/cache/acme",
		"users":           "users",
		"secret-file":     "secret",
		"token-ttl":       "1h30m",
		"origins":         "https://one.example.com,,https://two.example.com,",
		"page":            "false",
		"heartbeat":       "10s",
		"pings":           "true",
		"trusted-proxies": "10.1.2.3/8, 192.0.2.1,2001:db8::/32",
		"debug-addr":      "localhost:6060",
		"hsts":            "24h",

		"connections-per-address": "0",
		"waiting-connections":     "100",
		"log-level":               "WARN",
		"log-format":              "json",
		"drain":                   "30s",
		"drain-delay":             "3s",
		"registry":                "redis://:password@localhost",
		"history":                 "postgres://localhost/chat",
		"history-count":           "5000",
		"history-age":             "48h",
	}
	want := &config{
		addr:        "example.com:99",
		plaintext:   true,
		tlsCert:     "cert.pem",
		tlsKey:      "key.pem",
		acmeDomains: []string{"a.example.com", "b.example.com"},
		acmeCache:   "/var/cache/acme",
		usersFile:   "users",
		secretFile:  "secret",
		tokenTTL:    90 * time.Minute,
		heartbeat:   10 * time.Second,
		pings:       true,
		origins:     []string{"https://one.example.com", "https://two.example.com"},
		trustedProxies: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"),
			netip.MustParsePrefix("192.0.2.1/32"),
			netip.MustParsePrefix("2001:db8::/32"),
		},
		waiting:   100,
		hsts:      24 * time.Hour,
		debugAddr: "localhost:6060",
		logLevel:  slog.LevelWarn,
		logFormat: "json",
		drain:     30 * time.Second, drainDelay: 3 * time.Second,
		storage: Storage{
			Registry: "redis://:password@localhost", History: "postgres://localhost/chat",
			Count: 5000, Age: 48 * time.Hour,
		},
	}
	var args []string
	env := make(map[string]string)
	for name, value := range values {
		args = append(args, "-"+name+"="+value)
		env["CHATD_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = value
	}
	for name, proc := range map[string]Process{
		"flags":     process(nil, args...),
		"variables": process(env),
	} {
		t.Run(name, func(t *testing.T) {
			got, flags, err := parseConfig(Program{Name: "chatd"}, proc)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(config{}), cmpopts.IgnoreFields(config{}, "given"),
				cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
			flags.VisitAll(func(f *flag.Flag) {
				if _, ok := values[f.Name]; !ok && f.Name != "version" {
					t.Errorf("-%s is not tested", f.Name)
				}
			})
		})
	}
}

func TestWithoutSettingsTheDefaultsApply(t *testing.T) {
	got, _, err := parseConfig(Program{Name: "chatd"}, process(map[string]string{"CHATD_ADDR": "", "ADDR": "x:1"}))
	if err != nil {
		t.Fatal(err)
	}
	want := &config{
		addr:       "localhost:8443",
		perAddress: 256,
		waiting:    1024,
		hsts:       365 * 24 * time.Hour,
		tokenTTL:   15 * time.Minute,
		heartbeat:  25 * time.Second,
		page:       true,
		logLevel:   slog.LevelInfo,
		logFormat:  "text",
		drain:      10 * time.Second,
		storage:    Storage{Registry: "memory"},
		given:      map[string]string{},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(config{})); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if err := got.validate(); err != nil {
		t.Errorf("the defaults contradict each other: %v", err)
	}
}

func TestAFlagWinsOverItsVariable(t *testing.T) {
	proc := process(map[string]string{"CHATD_DRAIN": "nonsense"}, "-drain", "3s")
	got, _, err := parseConfig(Program{Name: "chatd"}, proc)
	if err != nil || got.drain != 3*time.Second {
		t.Errorf("drain %v, error %v", got.drain, err)
	}
}

func TestHelpListsEveryFlagItsVariableAndItsDefault(t *testing.T) {
	_, flags, err := parseConfig(Program{Name: "chatd", Flags: func(f *flag.FlagSet) {
		f.String("greeting", "hello", "say these `words`")
	}}, process(nil))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	printHelp(&out, "chatd", flags)
	for _, want := range []string{
		"  -addr host:port   CHATD_ADDR   default localhost:8443\n",
		"  -plaintext   CHATD_PLAINTEXT\n",
		"  -tls-cert file   CHATD_TLS_CERT\n",
		"  -log-format text|json   CHATD_LOG_FORMAT   default text\n",
		"  -greeting words   CHATD_GREETING   default hello\n      say these words\n",
		"  -registry where   CHATD_REGISTRY   default memory\n",
		"  -history where   CHATD_HISTORY\n      where messages are kept: memory, off; ",
		"  -version\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help has no %q", want)
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("too wide: %s", line)
		}
	}
}

func TestADelayMayBeZero(t *testing.T) {
	for text, want := range map[string]time.Duration{"0s": 0, "0": 0, "3s": 3 * time.Second} {
		if got, err := parseDelay(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1s", "3"} {
		if got, err := parseDelay(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}
