package jwt_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/lestrrat-go/jwx/v2/jwa"

	"github.com/reto10/chat/internal/jwt"
)

var (
	secret = []byte("0123456789abcdef0123456789abcdef")
	now    = time.Unix(1_000_000_000, 0)
	rules  = jwt.Rules{Role: "role"}
)

func TestDatesAreReadExactly(t *testing.T) {
	const eve = `"sub":"eve"`
	lastSecond := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	tests := []struct {
		name, claims string
		want         time.Time
		err          error
	}{
		{name: "whole", claims: `"exp":1000000001`, want: now.Add(time.Second)},
		{name: "fraction", claims: `"exp":1000000000.5`, want: now.Add(time.Second / 2)},
		{name: "exponent", claims: `"exp":2e9`, want: time.Unix(2e9, 0)},
		{name: "past the year 9999", claims: `"exp":9007199254740993`, want: lastSecond},
		{name: "past any clock", claims: `"exp":123456789012345678901234567890`, want: lastSecond},
		{name: "past any number", claims: `"exp":1e999`, err: jwt.ErrDate},
		{name: "this very moment", claims: `"exp":1000000000`, err: jwt.ErrExpired},
		{name: "a moment ago", claims: `"exp":999999999.999`, err: jwt.ErrExpired},
		{name: "before 1970", claims: `"exp":-1`, err: jwt.ErrExpired},
		{name: "zero", claims: `"exp":0`, err: jwt.ErrExpired},
		{name: "absent", claims: `"iat":1`, err: jwt.ErrNoExpiry},
		{name: "of other case", claims: `"EXP":2000000000`, err: jwt.ErrNoExpiry},
		{name: "null", claims: `"exp":null`, err: jwt.ErrDate},
		{name: "string", claims: `"exp":"2000000000"`, err: jwt.ErrDate},
		{name: "date", claims: `"exp":"2033-05-18T03:33:20Z"`, err: jwt.ErrDate},
		{name: "list", claims: `"exp":[2000000000]`, err: jwt.ErrDate},
		{name: "twice, the last counts", claims: `"exp":2000000000,"exp":1`, err: jwt.ErrExpired},
		{name: "nbf now", claims: `"exp":2e9,"nbf":1000000000`, want: time.Unix(2e9, 0)},
		{name: "nbf of a clock ahead", claims: `"exp":2e9,"nbf":1000000000.5`, want: time.Unix(2e9, 0)},
		{name: "nbf ahead as far as it may", claims: `"exp":2e9,"nbf":1000000030`, want: time.Unix(2e9, 0)},
		{name: "nbf ahead", claims: `"exp":2e9,"nbf":1000000030.1`, err: jwt.ErrNotYet},
		{name: "nbf of a clock ahead, and expired", claims: `"exp":1000000000,"nbf":1000000000.5`, err: jwt.ErrExpired},
		{name: "nbf string", claims: `"exp":2e9,"nbf":"1"`, err: jwt.ErrDate},
		{name: "iat ahead", claims: `"exp":2e9,"iat":1999999999`, want: time.Unix(2e9, 0)},
		{name: "iat string", claims: `"exp":2e9,"iat":"1"`, err: jwt.ErrDate},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parsed, err := jwt.Parse(sign(`{"alg":"HS256"}`, "{"+eve+","+test.claims+"}"))
			if err != nil {
				t.Fatal(err)
			}
			claims, err := parsed.Claims(rules, now)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, claims.Expires); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerifyNeverLetsTheTokenChoose(t *testing.T) {
	for _, header := range []string{`{"alg":"HS256"}`, `{"alg":"none"}`, `{"alg":"HS512"}`, `{"alg":"RS256"}`} {
		parsed, err := jwt.Parse(sign(header, `{}`))
		if err != nil {
			t.Fatal(err)
		}
		err = jwt.NewSecret(secret).Verify(parsed)
		if want := parsed.Verify(jwa.HS256, secret); err != want {
			t.Errorf("%s verified by a Secret: %v, want %v", header, err, want)
		}
		for _, alg := range []jwa.SignatureAlgorithm{jwa.HS256, jwa.HS384, jwa.RS256, jwa.NoSignature, "made-up"} {
			err := parsed.Verify(alg, secret)
			if ok := parsed.Algorithm == "HS256" && alg == jwa.HS256; ok != (err == nil) {
				t.Errorf("%s verified as %s: %v", header, alg, err)
			}
			if refusal := jwt.Refusal(""); err != nil && !errors.As(err, &refusal) {
				t.Errorf("%s verified as %s: %v is no Refusal", header, alg, err)
			}
		}
	}
}

func TestASecretVerifiesItsTokensOnly(t *testing.T) {
	good := sign(`{"alg":"HS256"}`, `{"sub":"ana"}`)
	own, other := jwt.NewSecret(secret), jwt.NewSecret([]byte(strings.Repeat("x", 32)))
	var token jwt.Token
	for range 3 { // the hash and the token are used again
		if err := token.Parse(good); err != nil {
			t.Fatal(err)
		}
		if err := own.Verify(&token); err != nil {
			t.Errorf("its own: %v", err)
		}
		if err := other.Verify(&token); err != jwt.ErrSignature {
			t.Errorf("that of another: %v, want ErrSignature", err)
		}
		if err := token.Parse(sign(`{"alg":"HS256"}`, `{"sub":"eve"}`)[:len(good)-43] + mac("x.y")); err != nil {
			t.Fatal(err)
		}
		if err := own.Verify(&token); err != jwt.ErrSignature {
			t.Errorf("with the signature of another: %v, want ErrSignature", err)
		}
		for _, bad := range []string{"", "a.b.c", good + ".x", strings.Repeat("x", jwt.MaxLen+1)} {
			if err := token.Parse(bad); err == nil || token.Algorithm != "" {
				t.Errorf("%.20q: %v, and the algorithm is %q", bad, err, token.Algorithm)
			}
			if err := own.Verify(&token); err != jwt.ErrAlgorithm {
				t.Errorf("after a token that could not be parsed: %v, want ErrAlgorithm", err)
			}
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(sign(`{"alg":"HS256"}`, `{"sub":"ana","role":"admin","exp":2e9}`))
	f.Add(sign(`{"alg":"HS256","kid":"1","typ":"JWT"}`, `{"sub":"ana","exp":2000000000,"aud":["a","b"],"iss":"me"}`))
	f.Add(sign(`{"alg":"none","crit":["b64"]}`, `null`))
	f.Add("a.b.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := jwt.Parse(s)
		refusal := jwt.Refusal("")
		if err != nil {
			if !errors.As(err, &refusal) {
				t.Fatalf("%v is no Refusal", err)
			}
			return
		}
		if len(s) > jwt.MaxLen || strings.Count(s, ".") != 2 {
			t.Errorf("parsed %q", s)
		}
		claims, err := parsed.Claims(jwt.Rules{Role: "role", Issuer: "me", Audience: "a"}, now)
		if err != nil && !errors.As(err, &refusal) {
			t.Errorf("%v is no Refusal", err)
		}
		if err == nil && (claims.Subject == "" || !claims.Expires.After(now)) {
			t.Errorf("claims %+v", claims)
		}
		err = parsed.Verify(jwa.HS256, secret)
		if hmacErr := jwt.NewSecret(secret).Verify(parsed); hmacErr != err {
			t.Errorf("Secret.Verify = %v, want %v", hmacErr, err)
		}
		if err == nil {
			// A valid signature needs the secret, and each token has only one text.
			at := strings.LastIndexByte(s, '.')
			if want := s[:at] + "." + mac(s[:at]); s != want {
				t.Errorf("%q is as good as %q", s, want)
			}
		}
	})
}

func sign(header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	return signed + "." + mac(signed)
}

func mac(signed string) string {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(signed))
	return encode(string(h.Sum(nil)))
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
