package jwks_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/reto10/chat/internal/jwt"
	"github.com/reto10/chat/test/pipenet"
)

// address is where every provider of these tests answers.
const address = "http://127.0.0.1/jwks"

// provider is an HTTP server that publishes keys, over pipes so that a synctest
// bubble knows when it waits.
type provider struct {
	client *http.Client

	mu     sync.Mutex
	answer http.HandlerFunc
	hits   int
}

func newProvider(t testing.TB, keys ...string) *provider {
	p := &provider{}
	p.publish(keys...)
	listener := pipenet.Listen()
	server := &http.Server{Handler: p}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	p.client = &http.Client{Transport: &http.Transport{DialContext: listener.Dial}}
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.hits++
	answer := p.answer
	p.mu.Unlock()
	answer(w, r)
}

// publish makes these JSON Web Keys all that there are.
func (p *provider) publish(keys ...string) {
	p.behave(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[%s]}`, strings.Join(keys, ","))
	})
}

func (p *provider) fail() {
	p.behave(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"keys":[]}`, http.StatusServiceUnavailable)
	})
}

func (p *provider) behave(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *provider) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// signer is a private key and the algorithm it signs with.
type signer struct {
	alg string
	key crypto.Signer
}

// newSigner makes a key; the RSA key is always the same, since making one takes
// long.
func newSigner(t testing.TB, alg string) signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case "RS256":
		key, err = onceRSA()
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("no signer for %s", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer{alg, key}
}

var onceRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// jwk is the public key as a JSON Web Key with these members besides.
func (s signer) jwk(t testing.TB, members map[string]any) string {
	t.Helper()
	return jwkOf(t, s.key.Public(), members)
}

func jwkOf(t testing.TB, raw any, members map[string]any) string {
	t.Helper()
	key, err := jwk.FromRaw(raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range members {
		if err := key.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// token is one that the key signed, with "kid" unless it is empty.
func (s signer) token(t testing.TB, kid string) *jwt.Token {
	t.Helper()
	return s.tokenAs(t, s.alg, kid)
}

// tokenAs is one whose header claims to be of another algorithm.
func (s signer) tokenAs(t testing.TB, alg, kid string) *jwt.Token {
	t.Helper()
	header := fmt.Sprintf(`{"alg":%q,"kid":%q}`, alg, kid)
	if kid == "" {
		header = fmt.Sprintf(`{"alg":%q}`, alg)
	}
	signed := base64url([]byte(header)) + "." + base64url([]byte(`{}`))
	sum := sha256.Sum256([]byte(signed))
	var signature []byte
	var err error
	switch key := s.key.(type) {
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey:
		signature = make([]byte, 64)
		r, s, signErr := ecdsa.Sign(rand.Reader, key, sum[:])
		if err = signErr; err == nil {
			r.FillBytes(signature[:32])
			s.FillBytes(signature[32:])
		}
	case ed25519.PrivateKey:
		signature = ed25519.Sign(key, []byte(signed))
	}
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.Parse(signed + "." + base64url(signature))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
