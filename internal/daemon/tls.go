package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// selfSignedTTL is how long a certificate made at start is valid. It is for trying the
// server out.
const selfSignedTTL = 30 * 24 * time.Hour

// tlsConfig returns the settings that all certificates share. It offers HTTP/1.1 only: the
// upgrade to a WebSocket needs it, and some clients would choose HTTP/2 for it.
func tlsConfig(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: certificate,
	}
}

// selfSigned makes a certificate for localhost, its addresses, and host unless that is
// empty or an unspecified address.
func selfSigned(host string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "chatd, self-signed"},
		NotBefore:             now.Add(-time.Hour), // clocks differ
		NotAfter:              now.Add(selfSignedTTL),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if ip := net.ParseIP(host); ip == nil {
		if host != "" && host != "localhost" {
			template.DNSNames = append(template.DNSNames, host)
		}
	} else if !ip.IsUnspecified() && !slices.ContainsFunc(template.IPAddresses, ip.Equal) {
		template.IPAddresses = append(template.IPAddresses, ip)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// keyPair is a certificate and its key in two files, which can be read again while the
// certificate is served.
type keyPair struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// load reads the files. On an error the certificate stays as it was.
func (p *keyPair) load() error {
	cert, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		return fmt.Errorf("reading the certificate %s with key %s: %w", p.certFile, p.keyFile, err)
	}
	p.current.Store(&cert)
	return nil
}

func (p *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return p.current.Load(), nil
}

// expired reports whether the current certificate has expired.
func (p *keyPair) expired(now time.Time) bool {
	cert := p.current.Load()
	return cert.Leaf != nil && now.After(cert.Leaf.NotAfter)
}

// acmeConfig gets and renews certificates for domains when clients ask for them (RFC
// 8555). It proves control of a domain in the TLS handshake (RFC 8737), so it needs no
// second port. It stores certificates in dir, by default in the user's cache directory,
// and returns the directory.
func acmeConfig(domains []string, dir string, log *slog.Logger) (c *tls.Config, cache string, err error) {
	if dir == "" {
		caches, err := os.UserCacheDir()
		if err != nil {
			return nil, "", fmt.Errorf("finding the default directory for certificates: %w; set -acme-cache", err)
		}
		dir = filepath.Join(caches, "chatd-acme")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("making the directory for certificates: %w", err)
	}
	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(dir),
		HostPolicy: autocert.HostWhitelist(domains...),
	}
	var quiet atomic.Int64 // when the next failure may be logged, in Unix nanoseconds
	c = tlsConfig(func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := manager.GetCertificate(hello)
		if err != nil && slices.Contains(domains, hello.ServerName) { // not for names that scanners try
			now := time.Now()
			if until := quiet.Load(); now.UnixNano() < until || !quiet.CompareAndSwap(until, now.Add(time.Minute).UnixNano()) {
				return cert, err // one line a minute
			}
			log.Warn("getting a certificate for -acme-domain failed", "domain", hello.ServerName, "err", err)
		}
		return cert, err
	})
	c.NextProtos = append(c.NextProtos, acme.ALPNProto)
	return c, dir, nil
}
