package daemon

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheSelfSignedCertificateIsValidForThisMachine(t *testing.T) {
	now := time.Now()
	tests := map[string]struct {
		host string
		good []string
		bad  []string
	}{
		"localhost": {"localhost", []string{"localhost", "127.0.0.1", "::1"}, []string{"example.com", "192.0.2.1"}},
		"anywhere":  {"0.0.0.0", []string{"localhost", "127.0.0.1", "::1"}, []string{"0.0.0.0"}},
		"no host":   {"", []string{"localhost", "127.0.0.1", "::1"}, nil},
		"a name":    {"box.lan", []string{"localhost", "127.0.0.1", "::1", "box.lan"}, []string{"lan"}},
		"a number":  {"192.0.2.1", []string{"localhost", "127.0.0.1", "::1", "192.0.2.1"}, []string{"192.0.2.2"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cert, err := selfSigned(test.host, now)
			if err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			roots.AddCert(cert.Leaf)
			verify := func(host string, at time.Time) error {
				_, err := cert.Leaf.Verify(x509.VerifyOptions{
					DNSName: host, Roots: roots, CurrentTime: at,
					KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				return err
			}
			for _, host := range test.good {
				if err := verify(host, now.Add(29*24*time.Hour)); err != nil {
					t.Errorf("%s: %v", host, err)
				}
			}
			for _, host := range test.bad {
				if verify(host, now) == nil {
					t.Errorf("holds for %s", host)
				}
			}
			if verify("localhost", now.Add(31*24*time.Hour)) == nil {
				t.Error("holds for ever")
			}
		})
	}
}

// handshake runs a handshake over a pipe and returns what the client sees, or the error of
// either side.
func handshake(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(a, server).Handshake()
		a.Close()
	}()
	conn := tls.Client(b, client)
	clientErr = conn.Handshake()
	if clientErr != nil {
		b.Close()
	}
	return conn.ConnectionState(), <-done, clientErr
}

func TestTLSOffersNothingOldAndOneProtocol(t *testing.T) {
	cert, err := selfSigned("localhost", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server := tlsConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil })
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)

	state, _, err := handshake(t, server, &tls.Config{
		RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2", "http/1.1"},
	})
	if err != nil || state.NegotiatedProtocol != "http/1.1" || state.Version != tls.VersionTLS13 {
		t.Errorf("protocol %q, version %x, error %v", state.NegotiatedProtocol, state.Version, err)
	}
	_, _, err = handshake(t, server, &tls.Config{
		RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
	if err == nil {
		t.Error("speaks TLS 1.1")
	}
}

// A certificate in the cache is served without contacting Let's Encrypt. So the test covers
// our part: where certificates are stored, and for which domains they are requested.
func TestACMEServesItsDomainsFromTheCache(t *testing.T) {
	cert, err := selfSigned("chat.example.com", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "made", "when", "needed")
	var out bytes.Buffer
	server, _, err := acmeConfig([]string{"chat.example.com"}, dir, newLogger(&out, slog.LevelInfo, "text"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("cache: mode %v, error %v", info.Mode(), err)
	}
	cached := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})...)
	if err := os.WriteFile(filepath.Join(dir, "chat.example.com"), cached, 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"http/1.1", "acme-tls/1"}, server.NextProtos); diff != "" {
		t.Errorf("protocols (-want +got):\n%s", diff)
	}

	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	if _, _, err := handshake(t, server, &tls.Config{RootCAs: roots, ServerName: "chat.example.com"}); err != nil {
		t.Errorf("the domain: %v", err)
	}
	_, err, _ = handshake(t, server, &tls.Config{RootCAs: roots, ServerName: "other.example.com"})
	if err == nil || !strings.Contains(err.Error(), "other.example.com") {
		t.Errorf("another domain: %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("logs what strangers do: %s", out.String())
	}
}
