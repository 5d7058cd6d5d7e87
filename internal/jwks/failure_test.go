package jwks_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat/internal/jwks"
	"github.com/reto10/chat/internal/jwt"
)

// An answer without a usable key is one that failed: it ends no token, it is repeated
// soon, and the log has one line.
func TestAnAnswerWithoutAUsableKeyChangesNothing(t *testing.T) {
	const oct = `{"kty":"oct","kid":"1","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
	}
	enc := newSigner(t, "ES256").jwk(t, map[string]any{"use": "enc"})
	tests := map[string]http.HandlerFunc{
		"no keys":               answer(`{"keys":[]}`),
		"keys null":             answer(`{"keys":null}`),
		"no keys member":        answer(`{}`),
		"keys of other kinds":   answer(`{"keys":[` + oct + `]}`),
		"keys for other uses":   answer(`{"keys":[` + enc + `]}`),
		"keys that make no key": answer(`{"keys":[{},{"kty":"EC"},{"kty":"RSA","n":"","e":""}]}`),
		"a web page":            answer(`<!DOCTYPE html><title>Maintenance</title>`),
		"nothing":               answer(``),
		"null":                  answer(`null`),
		"half of it":            answer(`{"keys":[` + enc),
		"too much":              answer(`{"keys":[],"x":"` + strings.Repeat("x", 1<<20) + `"}`),
		"no content":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"an error":              func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusBadGateway) },
		"a broken connection":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	for name, broken := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logged bytes.Buffer
				old, fresh := newSigner(t, "EdDSA"), newSigner(t, "EdDSA")
				p := newProvider(t, old.jwk(t, map[string]any{"kid": "1"}))
				set, err := jwks.Open(t.Context(), address, p.client, slog.New(slog.NewTextHandler(&logged, nil)))
				if err != nil {
					t.Fatal(err)
				}
				p.behave(broken)
				<-time.After(jwks.Refresh) // one fetch that fails
				synctest.Wait()
				before := p.asked()
				if err := set.Verify(t.Context(), old.token(t, "1")); err != nil {
					t.Errorf("by a key from before: %v", err)
				}
				refusal := jwt.Refusal("")
				if err := set.Verify(t.Context(), fresh.token(t, "2")); err == nil || errors.As(err, &refusal) {
					t.Errorf("by an unknown key: %v, want an error that is no Refusal", err)
				}
				<-time.After(jwks.RetryFirst + jwks.RetryFirst*2 - 1) // repeated, and again
				synctest.Wait()
				if got := p.asked() - before; got != 2 { // with the one for the unknown key
					t.Errorf("%d fetches more, want 2", got)
				}
				p.publish(fresh.jwk(t, map[string]any{"kid": "2"}))
				<-time.After(1)
				synctest.Wait()
				if err := set.Verify(t.Context(), old.token(t, "1")); !errors.Is(err, jwt.ErrSignature) {
					t.Errorf("once another key is published, by the one from before: %v, want ErrSignature", err)
				}
				if err := set.Verify(t.Context(), fresh.token(t, "2")); err != nil {
					t.Errorf("by that key: %v", err)
				}
				if warned, lines := strings.Count(logged.String(), "level=WARN"), strings.Count(logged.String(), "\n"); warned != 1 || lines != 2 || !strings.Contains(logged.String(), address) {
					t.Errorf("%d warnings in %d lines, want one that names %s, and one of the end:\n%s", warned, lines, address, &logged)
				}
			})
		})
	}
}

func TestAProviderThatStaysAwayIsAskedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, newSigner(t, "EdDSA").jwk(t, nil))
		open(t, p)
		p.fail()
		<-time.After(jwks.Refresh)
		synctest.Wait()
		before := p.asked()
		<-time.After(20 * jwks.Refresh)
		synctest.Wait()
		if got := p.asked() - before; got < 20 || got > 26 {
			t.Errorf("%d fetches in twenty intervals, want one each and a few at first", got)
		}
	})
}

// Whatever a provider publishes, the keys that are taken are public ones of a kind that
// tokens are signed with, and they are at least one.
func FuzzKeySet(f *testing.F) {
	for _, alg := range algorithms {
		f.Add([]byte(`{"keys":[` + newSigner(f, alg).jwk(f, map[string]any{"kid": "1", "alg": alg, "use": "sig"}) + `]}`))
	}
	for _, seed := range []string{
		``, `null`, `{}`, `[]`, `{"keys":[]}`, `{"keys":null}`, `{"keys":[null]}`, `{"keys":{}}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`, `{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`,
		`{"keys":[{"kty":"RSA","n":"AA","e":"AQAB"}]}`, `{"keys":[{"kty":"RSA","n":"","e":""}]}`, `{"keys":[{"kty":"OKP","crv":"X25519","x":"AA"}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","x":1,"y":[]}],"keys":[]}`, "\xff", `{"keys":[{"kty":"RSA","x5c":["AAAA"],"n":"AQAB","e":"AQAB"}]}`,
	} {
		f.Add([]byte(seed))
	}
	stranger := newSigner(f, "ES256").token(f, "1")
	f.Fuzz(func(t *testing.T, body []byte) {
		kinds, verify, err := jwks.ParseKeys(body)
		if err != nil {
			return
		}
		if len(kinds) == 0 {
			t.Errorf("a key set without a key is taken: %q", body)
		}
		for _, kind := range kinds {
			if !slices.Contains([]string{"RS256 *rsa.PublicKey", "ES256 *ecdsa.PublicKey", "EdDSA ed25519.PublicKey"}, kind) {
				t.Errorf("a key of kind %s is taken: %q", kind, body)
			}
		}
		if verify(stranger) == nil {
			t.Errorf("a token by another key is good by: %q", body)
		}
	})
}
