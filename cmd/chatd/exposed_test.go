package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
)

// What others on the machine could do to the files that decide who is who.
func TestFilesThatOthersCanReadOrWriteAreWarnedOf(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "one")
	tests := map[string]struct {
		change func(t *testing.T, dir string) // of users, secret, cert.pem and key.pem
		want   []string
	}{
		"as they should be": {func(*testing.T, string) {}, nil},
		"users for the group to write": {chmod("users", 0o660),
			[]string{"others on this machine can write the users file"}},
		"users for everybody to write": {chmod("users", 0o606),
			[]string{"others on this machine can write the users file"}},
		"users for everybody to read": {chmod("users", 0o644), nil}, // hashes of passwords, as htpasswd leaves them
		"another's users": {func(t *testing.T, dir string) {
			if err := os.Chown(filepath.Join(dir, "users"), 12345, -1); err != nil {
				t.Skipf("only root gives files away: %v", err)
			}
		}, []string{"another user of this machine owns the users file and can write it"}},
		"a key for everybody to read": {chmod("key.pem", 0o644),
			[]string{"everybody on this machine can read the TLS key"}},
		"a key for its group to read": {chmod("key.pem", 0o640), nil}, // such as ssl-cert
		"a secret for everybody": {chmod("secret", 0o666),
			[]string{"everybody on this machine can read the secret", "others on this machine can write the secret"}},
		"their directory for everybody": {chmod("", 0o777), []string{
			"others on this machine can replace the TLS key, since they can write its directory",
			"others on this machine can replace the secret, since they can write its directory",
			"others on this machine can replace the users file, since they can write its directory",
		}},
		"a sticky directory": {chmod("", 0o777|os.ModeSticky), nil},
		"a link into a directory for everybody": {func(t *testing.T, dir string) {
			open := filepath.Join(dir, "open")
			if err := os.Mkdir(open, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "users"), filepath.Join(open, "users")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("open/users", filepath.Join(dir, "users")); err != nil {
				t.Fatal(err)
			}
			chmod("open", 0o777)(t, dir)
		}, []string{"others on this machine can replace the users file, since they can write its directory"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{
				"users": chatdtest.Users, "secret": chatdtest.Secret, "cert.pem": contentOf(t, cert), "key.pem": contentOf(t, key),
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			test.change(t, dir)
			d := startAlone(t, nil, "-users", filepath.Join(dir, "users"), "-secret-file", filepath.Join(dir, "secret"),
				"-tls-cert", filepath.Join(dir, "cert.pem"), "-tls-key", filepath.Join(dir, "key.pem"))
			if diff := cmp.Diff(test.want, warnings(d.Logged())); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPermissionsAreLookedAtAgainWithTheFiles(t *testing.T) {
	t.Parallel()
	users := write(t, "users", chatdtest.Users)
	d := startAlone(t, nil, "-users", users, "-secret-file", write(t, "secret", chatdtest.Secret), "-plaintext")
	if got := warnings(d.Logged()); got != nil {
		t.Errorf("at start: %q", got)
	}
	if err := os.Chmod(users, 0o666); err != nil {
		t.Fatal(err)
	}
	d.Signal(syscall.SIGHUP)
	d.Await(regexp.MustCompile(`level=WARN msg="others on this machine can write the users file" file=` + users))
}

func chmod(name string, mode os.FileMode) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func contentOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// warnings are the messages of a log at warn and above.
func warnings(log string) (found []string) {
	message := regexp.MustCompile(`level=(?:WARN|ERROR) msg=(?:"([^"]*)"|(\S+))`)
	for line := range strings.Lines(log) {
		if m := message.FindStringSubmatch(line); m != nil {
			found = append(found, m[1]+m[2])
		}
	}
	return found
}

func TestBrowsersAreToldToComeByHTTPS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "one")
	const year = "max-age=31536000"
	tests := map[string]struct {
		args []string
		host string
		want string
	}{
		"a certificate of its own":    {[]string{"-tls-cert", cert, "-tls-key", key}, "chat.example.com", year},
		"at port 443":                 {[]string{"-tls-cert", cert, "-tls-key", key}, "chat.example.com:443", year},
		"at another port":             {[]string{"-tls-cert", cert, "-tls-key", key}, "chat.example.com:8443", ""},
		"at another port, in words":   {[]string{"-tls-cert", cert, "-tls-key", key, "-hsts", "24h"}, "chat.example.com:8443", ""},
		"for a day":                   {[]string{"-tls-cert", cert, "-tls-key", key, "-hsts", "24h"}, "chat.example.com", "max-age=86400"},
		"turned off":                  {[]string{"-tls-cert", cert, "-tls-key", key, "-hsts", "0s"}, "chat.example.com", "max-age=0"},
		"turned off at another port":  {[]string{"-tls-cert", cert, "-tls-key", key, "-hsts", "0s"}, "chat.example.com:8443", "max-age=0"},
		"in a local network":          {[]string{"-tls-cert", cert, "-tls-key", key}, "chat.local", ""},
		"in a cloud":                  {[]string{"-tls-cert", cert, "-tls-key", key}, "chat.corp.internal", ""},
		"at home":                     {[]string{"-tls-cert", cert, "-tls-key", key}, "Chat.Home.Arpa.", ""},
		"in a test":                   {[]string{"-tls-cert", cert, "-tls-key", key}, "chat.test", ""},
		"a name that ends like those": {[]string{"-tls-cert", cert, "-tls-key", key}, "chat.latest", year},
		"at an address":               {[]string{"-tls-cert", cert, "-tls-key", key}, "192.0.2.1:8443", ""},
		"at an IPv6 address":          {[]string{"-tls-cert", cert, "-tls-key", key}, "[2001:db8::1]", ""},
		"on this machine":             {[]string{"-tls-cert", cert, "-tls-key", key}, "localhost:8443", ""},
		"on this machine, below":      {[]string{"-tls-cert", cert, "-tls-key", key}, "chat.localhost", ""},
		"a certificate made at start": {nil, "chat.example.com", ""},
		"without TLS":                 {[]string{"-plaintext"}, "chat.example.com", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, nil, test.args...)
			for _, path := range []string{"/", "/healthz", "/nothing"} {
				req, err := http.NewRequestWithContext(within(t), http.MethodGet, d.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = test.host
				resp, err := d.HTTP.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if got := resp.Header.Get("Strict-Transport-Security"); got != test.want {
					t.Errorf("%s: Strict-Transport-Security %q, want %q", path, got, test.want)
				}
			}
		})
	}
}
