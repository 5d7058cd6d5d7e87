package jwks_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/reto10/chat/internal/jwks"
	"github.com/reto10/chat/internal/jwt"
)

// bubbleStart is when the clock of a synctest bubble starts.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

var algorithms = []string{"RS256", "ES256", "EdDSA"}

func TestEveryAlgorithmWithAndWithoutNames(t *testing.T) {
	for _, alg := range algorithms {
		tests := []struct {
			name string
			key  map[string]any
			kid  string // of the token
			want error
		}{
			{"all named", map[string]any{"kid": "1", "alg": alg, "use": "sig"}, "1", nil},
			{"key without alg", map[string]any{"kid": "1"}, "1", nil},
			{"token without kid", map[string]any{"kid": "1"}, "", nil},
			{"key without kid", nil, "1", nil},
			{"neither with kid", nil, "", nil},
			{"for verifying", map[string]any{"kid": "1", "key_ops": []string{"verify"}}, "1", nil},
			{"another kid", map[string]any{"kid": "1"}, "2", jwt.ErrSignature},
			{"kid of other case", map[string]any{"kid": "a"}, "A", jwt.ErrSignature},
		}
		for _, test := range tests {
			t.Run(alg+"/"+test.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSigner(t, alg)
					set := open(t, newProvider(t, s.jwk(t, test.key)))
					if err := set.Verify(t.Context(), s.token(t, test.kid)); !errors.Is(err, test.want) {
						t.Errorf("%v, want %v", err, test.want)
					}
				})
			})
		}
	}
}

func TestOnlyTheRightKeyVerifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signers := make(map[string]signer)
		var keys []string
		for _, alg := range algorithms {
			signers[alg] = newSigner(t, alg)
			keys = append(keys, signers[alg].jwk(t, map[string]any{"kid": alg}))
		}
		stranger := newSigner(t, "ES256")
		p := newProvider(t, keys...)
		set := open(t, p)
		for _, alg := range algorithms {
			for _, says := range append(algorithms, "HS256", "RS512", "none") {
				for _, kid := range append(algorithms, "") {
					err := set.Verify(t.Context(), signers[alg].tokenAs(t, says, kid))
					if good := says == alg && (kid == alg || kid == ""); good != (err == nil) {
						t.Errorf("signed with %s, says %s by %q: %v", alg, says, kid, err)
					}
					if refusal := jwt.Refusal(""); err != nil && !errors.As(err, &refusal) {
						t.Errorf("signed with %s, says %s by %q: %v is no Refusal", alg, says, kid, err)
					}
				}
			}
		}
		before := p.asked()
		for range 10 {
			if err := set.Verify(t.Context(), stranger.token(t, "ES256")); !errors.Is(err, jwt.ErrSignature) {
				t.Errorf("forged in the name of a key: %v", err)
			}
		}
		if p.asked() != before {
			t.Error("a forged signature had the keys fetched")
		}
	})
}

func TestKeysForOtherUsesAreLeftAlone(t *testing.T) {
	es256, eddsa := newSigner(t, "ES256"), newSigner(t, "EdDSA")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaOf := func(bits uint) string {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return fmt.Sprintf(`{"kty":"RSA","kid":"1","e":"AQAB","n":%q}`, base64url(n.Add(n, big.NewInt(1)).Bytes()))
	}
	tests := []struct{ name, key string }{
		{"symmetric", `{"kty":"oct","kid":"1","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`},
		{"symmetric that says ES256", `{"kty":"oct","kid":"1","alg":"ES256","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`},
		{"private", jwkOf(t, es256.key, map[string]any{"kid": "1"})},
		{"for encryption", es256.jwk(t, map[string]any{"kid": "1", "use": "enc"})},
		{"for signing only", es256.jwk(t, map[string]any{"kid": "1", "key_ops": []string{"sign"}})},
		{"of another algorithm", newSigner(t, "RS256").jwk(t, map[string]any{"kid": "1", "alg": "PS256"})},
		{"of an algorithm of another kind", eddsa.jwk(t, map[string]any{"kid": "1", "alg": "ES256"})},
		{"of an unheard-of algorithm", eddsa.jwk(t, map[string]any{"kid": "1", "alg": "XX999"})},
		{"of another curve", jwkOf(t, p384.Public(), map[string]any{"kid": "1"})},
		{"for key agreement", `{"kty":"OKP","crv":"X25519","kid":"1","x":"3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"}`},
		{"Ed25519 cut short", `{"kty":"OKP","crv":"Ed25519","kid":"1","x":"AAAA"}`},
		{"not on the curve", `{"kty":"EC","crv":"P-256","kid":"1","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`},
		{"RSA too short", rsaOf(1024)},
		{"RSA too long", rsaOf(16384)},
		{"of an unheard-of kind", `{"kty":"AKP","kid":"1","alg":"ML-DSA-44","pub":"AAAA"}`},
		{"without a kind", `{"kid":"1"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t, test.key)
				if _, err := jwks.Open(t.Context(), address, p.client, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "no key") {
					t.Errorf("alone: %v", err)
				}
				good := newSigner(t, "ES256")
				p.publish(test.key, good.jwk(t, map[string]any{"kid": "2"}))
				set := open(t, p)
				if err := set.Verify(t.Context(), good.token(t, "2")); err != nil {
					t.Errorf("a good key beside it: %v", err)
				}
				for _, s := range []signer{es256, eddsa, newSigner(t, "RS256")} {
					if err := set.Verify(t.Context(), s.token(t, "1")); err == nil {
						t.Errorf("%s signed by it holds", s.alg)
					}
				}
			})
		})
	}
}

func TestRotationIsPickedUpAtOnce(t *testing.T) {
	for _, kid := range []bool{true, false} {
		t.Run(fmt.Sprintf("kid=%v", kid), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, fresh := newSigner(t, "ES256"), newSigner(t, "ES256")
				one, two := "1", "2"
				keyOne, keyTwo := map[string]any{"kid": one}, map[string]any{"kid": two}
				if !kid {
					one, two, keyOne, keyTwo = "", "", nil, nil
				}
				p := newProvider(t, old.jwk(t, keyOne))
				set := open(t, p)
				p.publish(fresh.jwk(t, keyTwo))

				if err := set.Verify(t.Context(), fresh.token(t, two)); err != nil {
					t.Errorf("by the new key: %v", err)
				}
				if err := set.Verify(t.Context(), old.token(t, one)); !errors.Is(err, jwt.ErrSignature) {
					t.Errorf("by the removed key: %v, want ErrSignature", err)
				}
				if got := time.Since(bubbleStart); got != 0 {
					t.Errorf("took %v", got)
				}
			})
		})
	}
}

func TestKeysTakenBackAreRefusedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newSigner(t, "EdDSA"), newSigner(t, "EdDSA")
		p := newProvider(t, old.jwk(t, map[string]any{"kid": "1"}))
		set := open(t, p)
		p.publish(fresh.jwk(t, map[string]any{"kid": "1"})) // even under the same name
		<-time.After(jwks.Refresh - 1)
		if err := set.Verify(t.Context(), old.token(t, "1")); err != nil {
			t.Errorf("before the refresh: %v", err)
		}
		<-time.After(1)
		synctest.Wait()
		if err := set.Verify(t.Context(), old.token(t, "1")); !errors.Is(err, jwt.ErrSignature) {
			t.Errorf("after the refresh: %v, want ErrSignature", err)
		}
		if err := set.Verify(t.Context(), fresh.token(t, "1")); err != nil {
			t.Errorf("by the new key: %v", err)
		}
	})
}

func TestMadeUpKeysDoNotHammerTheProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known, stranger := newSigner(t, "EdDSA"), newSigner(t, "EdDSA")
		p := newProvider(t, known.jwk(t, map[string]any{"kid": "1"}))
		set := open(t, p)
		before := p.asked()
		for second := range 60 {
			for i := range 50 {
				err := set.Verify(t.Context(), stranger.token(t, fmt.Sprint(second, i)))
				if !errors.Is(err, jwt.ErrSignature) {
					t.Fatalf("%v, want ErrSignature", err)
				}
			}
			<-time.After(time.Second)
		}
		if got := p.asked() - before; got < 6 || got > 9 {
			t.Errorf("3,000 made-up keys in a minute made for %d fetches, want 3 and one in ten seconds", got)
		}
		// And the attack leaves nothing behind that goes on asking.
		before = p.asked()
		<-time.After(10 * jwks.Refresh)
		synctest.Wait()
		if got := p.asked() - before; got != 10 {
			t.Errorf("%d fetches in ten intervals after that, want 10", got)
		}
	})
}

func TestWaitersShareAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newSigner(t, "ES256"), newSigner(t, "ES256")
		p := newProvider(t, old.jwk(t, map[string]any{"kid": "1"}))
		set := open(t, p)
		before := p.asked()
		answer := make(chan struct{})
		key := fresh.jwk(t, map[string]any{"kid": "2"})
		p.behave(func(w http.ResponseWriter, _ *http.Request) {
			<-answer
			fmt.Fprintf(w, `{"keys":[%s]}`, key)
		})
		good := fresh.token(t, "2")
		errs := make(chan error)
		for range 50 {
			go func() { errs <- set.Verify(t.Context(), good) }()
		}
		synctest.Wait()
		if err := set.Verify(t.Context(), old.token(t, "1")); err != nil {
			t.Errorf("by a known key meanwhile: %v", err)
		}
		close(answer)
		for range 50 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if got := p.asked() - before; got != 1 {
			t.Errorf("%d fetches, want 1", got)
		}
	})
}

func TestProviderDown(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	tests := []struct {
		name string
		down func(p *provider)
		wait time.Duration // until an unknown key is given up
	}{
		{"says so", func(p *provider) { p.fail() }, 0},
		{"hangs", func(p *provider) { p.behave(hang) }, jwks.Timeout},
		{"answers with no keys at all", func(p *provider) {
			p.behave(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"error":"x"}`) })
		}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				known, fresh := newSigner(t, "EdDSA"), newSigner(t, "EdDSA")
				keyOne, keyTwo := known.jwk(t, map[string]any{"kid": "1"}), fresh.jwk(t, map[string]any{"kid": "2"})
				p := newProvider(t, keyOne)
				set := open(t, p)
				test.down(p)
				refusal := jwt.Refusal("")
				for i := range 5 { // also when no fetch is to be had just now
					begin := time.Now()
					err := set.Verify(t.Context(), fresh.token(t, "2"))
					if err == nil || errors.As(err, &refusal) || !strings.Contains(err.Error(), address) {
						t.Errorf("by an unknown key: %v, want an error about %s that is no Refusal", err, address)
					}
					if took := time.Since(begin); took != test.wait && i < 3 {
						t.Errorf("took %v, want %v", took, test.wait)
					}
				}
				<-time.After(3 * jwks.Refresh) // several more that fail
				if err := set.Verify(t.Context(), known.token(t, "1")); err != nil {
					t.Errorf("by a known key: %v", err)
				}
				p.publish(keyOne, keyTwo)
				if err := set.Verify(t.Context(), fresh.token(t, "2")); err != nil {
					t.Errorf("once it is back: %v", err)
				}
			})
		})
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := newSigner(t, "EdDSA")
		p := newProvider(t, known.jwk(t, map[string]any{"kid": "1"}))
		ctx, stop := context.WithCancel(t.Context())
		set, err := jwks.Open(ctx, address, p.client, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p.behave(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := set.Verify(short, known.token(t, "2")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
		stop()
		synctest.Wait()
		if err := set.Verify(t.Context(), known.token(t, "1")); err != nil {
			t.Errorf("by a known key after the end: %v", err)
		}
		if err := set.Verify(t.Context(), known.token(t, "3")); !errors.Is(err, jwks.ErrStopped) {
			t.Errorf("by an unknown key after the end: %v, want ErrStopped", err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
	}
	key := newSigner(t, "ES256").jwk(t, nil)
	tests := []struct {
		name, address string
		answer        http.HandlerFunc
		want          string
	}{
		{"an error page", address, http.NotFound, "404"},
		{"a web page", address, answer("<html>"), "not a JSON Web Key Set"},
		{"nothing", address, answer(""), "not a JSON Web Key Set"},
		{"no keys", address, answer(`{"keys":[]}`), "no key"},
		{"too much", address, answer(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`), "larger than"},
		{"too many keys", address, answer(`{"keys":[` + strings.Repeat(key+",", 100) + key + `]}`), "101 keys"},
		{"a way over plain http", address, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://id.example.com/jwks", http.StatusFound)
		}, "plain http"},
		{"a way that never ends", address, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, address, http.StatusFound)
		}, "too many redirects"},
		{"never an end", address, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline exceeded"},
		{"plain http", "http://id.example.com/jwks", nil, "plain http"},
		{"plain http of a loopback's namesake", "http://127.0.0.1.example.com/jwks", nil, "plain http"},
		{"a file", "file://localhost/etc/passwd", nil, "neither https nor http"},
		{"a path", "/jwks", nil, "no absolute URL"},
		{"what is no URL", "http://me:hunter2@host:port/", nil, "no URL"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t)
				p.behave(test.answer)
				_, err := jwks.Open(t.Context(), test.address, p.client, slog.New(slog.DiscardHandler))
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("%v, want an error about %q", err, test.want)
				}
				if test.answer == nil && !errors.Is(err, jwks.ErrAddress) {
					t.Errorf("%v, want ErrAddress", err)
				}
				if test.answer != nil && !strings.Contains(err.Error(), address) {
					t.Errorf("%v does not name %s", err, address)
				}
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("a password in %v", err)
				}
			})
		})
	}
}

func TestRedirectsToSafePlacesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, "ES256")
		key := s.jwk(t, map[string]any{jwk.KeyIDKey: "1"})
		p := newProvider(t)
		p.behave(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/jwks" {
				http.Redirect(w, r, "http://localhost/keys", http.StatusFound)
				return
			}
			fmt.Fprintf(w, `{"keys":[%s]}`, key)
		})
		if err := open(t, p).Verify(t.Context(), s.token(t, "1")); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			s := newSigner(b, alg)
			set := open(b, newProvider(b, s.jwk(b, map[string]any{"kid": "1"})))
			good := s.token(b, "1")
			b.ReportAllocs()
			for b.Loop() {
				if err := set.Verify(b.Context(), good); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// open opens the provider's keys until the end of the test.
func open(t testing.TB, p *provider) *jwks.Set {
	t.Helper()
	set, err := jwks.Open(t.Context(), address, p.client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return set
}
