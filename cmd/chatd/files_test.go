package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/reto10/chat/test/chatdtest"
)

// What chatd says to a SIGHUP.
var (
	usersAgain = regexp.MustCompile(`msg=reloaded what=users`)
	certAgain  = regexp.MustCompile(`msg=reloaded what=certificate`)
	stays      = regexp.MustCompile(`level=ERROR msg="reloading failed: the previous content stays in use".*`)
)

// line is one of a users file, as cheap to check as can be.
func line(t *testing.T, user, password string, role ...string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append([]string{user, string(hash)}, role...), ":") + "\n"
}

// hashed is one by chatd hash.
func hashed(t *testing.T, user, password string, args ...string) string {
	t.Helper()
	stdout, stderr, code := runToEnd(t, nil, password+"\n", append([]string{"hash", "-user", user}, args...)...)
	if code != 0 {
		t.Fatalf("chatd hash: exit code %d: %s", code, stderr)
	}
	return stdout
}

func TestWhoIsInTheUsersFileLogsIn(t *testing.T) {
	t.Parallel()
	file := hashed(t, "ana", "correct horse", "-role", "admin") + hashed(t, "bob", "battery staple")
	d := startAlone(t, nil, "-users", write(t, "users", file))
	if d.Printed() != "" {
		t.Errorf("nothing was made up for users, but it prints:\n%s", d.Printed())
	}
	_, ana := d.login("ana", "correct horse")
	_, bob := d.login("bob", "battery staple")
	for name, test := range map[string]struct {
		token string
		want  int
	}{
		"admin":         {ana, http.StatusOK},
		"ordinary user": {bob, http.StatusForbidden},
	} {
		if status, _ := d.get(d.URL + "/users/connected?token=" + test.token); status != test.want {
			t.Errorf("%s: /users/connected: status %d, want %d", name, status, test.want)
		}
	}
	if status, _ := d.login("admin", "anything"); status != http.StatusUnauthorized {
		t.Errorf("a user who is not in the file: status %d", status)
	}
}

func TestAFileOfHtpasswdWorksAsItIs(t *testing.T) {
	t.Parallel()
	chatdtest.Needs(t, "htpasswd")
	path := write(t, "users", "")
	for _, args := range [][]string{
		{"-B", "-b", path, "ana", "correct horse"},
		{"-B", "-C", "6", "-b", path, "bob@example.com", "påssword"},
	} {
		if out, err := exec.CommandContext(within(t), "htpasswd", args...).CombinedOutput(); err != nil {
			t.Fatalf("htpasswd: %v\n%s", err, out)
		}
	}
	d := startAlone(t, nil, "-users", path)
	for user, password := range map[string]string{"ana": "correct horse", "bob@example.com": "påssword"} {
		status, token := d.login(user, password)
		if status != http.StatusOK {
			t.Errorf("%s: status %d", user, status)
			continue
		}
		if got := d.Connect(token).Want("welcome").User; got != user {
			t.Errorf("%s is welcome as %s", user, got)
		}
	}
}

func TestSIGHUPReadsUsersAgain(t *testing.T) {
	t.Parallel()
	ana, bob := line(t, "ana", "of ana"), line(t, "bob", "of bob")
	path := write(t, "users", ana)
	d := startAlone(t, nil, "-users", path)
	wantLogins := func(when string, anaIn, bobIn int) {
		t.Helper()
		if status, _ := d.login("ana", "of ana"); status != anaIn {
			t.Errorf("%s: ana gets %d, want %d", when, status, anaIn)
		}
		if status, _ := d.login("bob", "of bob"); status != bobIn {
			t.Errorf("%s: bob gets %d, want %d", when, status, bobIn)
		}
	}
	wantLogins("at start", http.StatusOK, http.StatusUnauthorized)

	rewrite(t, path, ana+"\n"+bob+"eve:not-a-hash-but-her-password\n")
	d.Signal(syscall.SIGHUP)
	said := d.Await(stays)[0]
	if !strings.Contains(said, "line 4") || !strings.Contains(said, path) {
		t.Errorf("does not say where the mistake is: %s", said)
	}
	if strings.Contains(said, "her-password") {
		t.Errorf("repeats what may be a password: %s", said)
	}
	wantLogins("after a bad file", http.StatusOK, http.StatusUnauthorized)

	rewrite(t, path, bob)
	d.Signal(syscall.SIGHUP)
	d.Await(usersAgain)
	wantLogins("after a good file", http.StatusUnauthorized, http.StatusOK)
}

func TestTokensOutliveTheProcessWithASecretFile(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret", strings.Repeat("0123456789abcdef", 2)+"\n")
	one, two := start(t, nil, "-secret-file", secret), start(t, nil, "-secret-file", secret)
	two.Connect(one.tokenOf("admin")).Want("welcome")
}

func TestASecretThatEverybodyCanReadIsWarnedOf(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret", strings.Repeat("x", 32))
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	d := start(t, nil, "-secret-file", secret)
	d.Await(regexp.MustCompile(`level=WARN .*can read the secret`))
}

func TestSIGHUPReadsTheCertificateAgain(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "one")
	d := start(t, nil, "-tls-cert", cert, "-tls-key", key)
	served := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(d.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := served(); got != "one" {
		t.Errorf("at start: %s", got)
	}
	s := d.Connect(d.tokenOf("admin"))
	s.Want("welcome")

	newCert, newKey := pemPair(t, "two")
	rewrite(t, cert, newCert)
	d.Signal(syscall.SIGHUP)
	d.Await(stays)
	if got := served(); got != "one" {
		t.Errorf("with a certificate and another's key: %s", got)
	}
	rewrite(t, key, newKey)
	d.Signal(syscall.SIGHUP)
	d.Await(certAgain)
	if got := served(); got != "two" {
		t.Errorf("with a new pair: %s", got)
	}
	s.Say("still here")
	s.Want("message")
}

func TestHash(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args  []string
		stdin string
		code  int
		want  string // of stdout, or of the one line on stderr
	}{
		"name by default":     {nil, "pw\n", 0, `^user:\$2[aby]\$\d\d\$[./0-9A-Za-z]{53}\n$`},
		"name and role":       {[]string{"-user", "ana", "-role", "admin"}, "pw", 0, `^ana:\$2\S{58}:admin\n$`},
		"first line only":     {nil, "pw\r\nmore\n", 0, `^user:`},
		"no password":         {nil, "", 1, `hashing the password: `},
		"password too long":   {nil, strings.Repeat("x", 73), 1, `hashing the password: `},
		"name with a colon":   {[]string{"-user", "a:b"}, "pw", 2, `-user "a:b"`},
		"name like a comment": {[]string{"-user", "#ana"}, "pw", 2, `-user "#ana"`},
		"role with a colon":   {[]string{"-role", "a:b"}, "pw", 2, `-role "a:b"`},
		"password as an argument": {
			[]string{"hunter2"}, "", 2, `^chatd: hash takes no argument: `,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := runToEnd(t, nil, test.stdin, append([]string{"hash"}, test.args...)...)
			got, other := stdout, stderr
			if test.code != 0 {
				got, other = stderr, stdout
			}
			if code != test.code || other != "" || strings.Count(got, "\n") != 1 || !regexp.MustCompile(test.want).MatchString(got) {
				t.Errorf("exit code %d, want %d; stdout %q, stderr %q, want %s", code, test.code, stdout, stderr, test.want)
			}
		})
	}
}

// certificate makes files with a certificate of this name and its key.
func certificate(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	cert, key := pemPair(t, name)
	return write(t, "cert.pem", cert), write(t, "key.pem", key)
}

func pemPair(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}
