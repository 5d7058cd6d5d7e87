package chat_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
)

func TestValidTokens(t *testing.T) {
	hour := time.Unix(bubbleStart+3600, 0)
	tests := []struct {
		name, header, claims string
		opts                 []chat.HS256Option
		want                 chat.Identity
	}{
		{
			name:   "the seed's",
			claims: `{"sub":"ana","role":"admin","exp":946688400}`,
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "admin"}, Expires: hour},
		},
		{
			name:   "without a role",
			claims: `{"sub":"auth0|123","exp":946688400}`,
			want:   chat.Identity{User: chat.User{Name: "auth0|123", Role: "user"}, Expires: hour},
		},
		{
			name:   "with a role of the embedder's",
			claims: `{"sub":"ana","role":"auditor","exp":946688400}`,
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "auditor"}, Expires: hour},
		},
		{
			name:   "issued a little ahead of our clock",
			claims: `{"sub":"ana","exp":946688400,"iat":946684803,"nbf":946684800}`,
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "user"}, Expires: hour},
		},
		{
			name:   "used at once, its issuer's clock ahead of ours",
			claims: `{"sub":"ana","exp":946688400,"iat":946684800.5,"nbf":946684800.5}`,
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "user"}, Expires: hour},
		},
		{
			name:   "its issuer's clock ahead as far as it may",
			claims: `{"sub":"ana","exp":946688400,"nbf":946684830}`,
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "user"}, Expires: hour},
		},
		{
			name:   "issuer and audience unasked for",
			claims: `{"sub":"ana","exp":946688400,"iss":"x","aud":["y"]}`,
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "user"}, Expires: hour},
		},
		{
			name:   "issuer and audience as configured, role elsewhere",
			claims: `{"sub":"ana","exp":946688400,"iss":"me","aud":["x","chat"],"role":7,"https://x/role":"admin"}`,
			opts:   []chat.HS256Option{chat.WithIssuer("me"), chat.WithAudience("chat"), chat.WithRoleClaim("https://x/role")},
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "admin"}, Expires: hour},
		},
		{
			name:   "single audience",
			claims: `{"sub":"ana","exp":946688400,"aud":"chat"}`,
			opts:   []chat.HS256Option{chat.WithAudience("chat")},
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "user"}, Expires: hour},
		},
		{
			name:   "an access token's type (RFC 9068)",
			header: `{"alg":"HS256","typ":"application/at+JWT","kid":"any"}`,
			claims: `{"sub":"ana","exp":946688400}`,
			want:   chat.Identity{User: chat.User{Name: "ana", Role: "user"}, Expires: hour},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if test.header == "" {
					test.header = `{"alg":"HS256","typ":"JWT"}`
				}
				got, err := newHS256(t, test.opts...).Authenticate(t.Context(), signHMAC(sha256.New, authSecret, test.header, test.claims))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestInvalidTokens(t *testing.T) {
	const good = `{"sub":"ana","role":"admin","exp":946688400}`
	const header = `{"alg":"HS256","typ":"JWT"}`
	sign := func(header, claims string) string { return signHMAC(sha256.New, authSecret, header, claims) }
	claims := func(claims string) string { return sign(header, claims) }
	whole := sign(header, good)
	part := strings.Split(whole, ".")

	const (
		malformed = "token is malformed"
		algorithm = "token is signed with another algorithm"
		signature = "token is not signed by a known key"
		user      = "token names no valid user"
		role      = "token has no valid role"
		date      = "token has a date that is no number"
	)
	tests := []struct{ name, token, want string }{
		// The form.
		{"empty", "", malformed},
		{"blank", " ", malformed},
		{"no dots", "token", malformed},
		{"one dot", part[0] + "." + part[1], malformed},
		{"only dots", "..", malformed},
		{"doubled dot", part[0] + ".." + part[1] + "." + part[2], malformed},
		{"dot at the end", whole + ".", malformed},
		{"dot in front", "." + whole, malformed},
		{"detached payload", part[0] + ".." + part[2], malformed},
		{"no header", "." + part[1] + "." + part[2], malformed},
		{"no signature", part[0] + "." + part[1] + ".", malformed},
		{"space in front", " " + whole, malformed},
		{"line end behind", whole + "\n", malformed},
		{"line end within", part[0] + ".\n" + part[1] + "." + part[2], malformed},
		{"padded base64", part[0] + "=." + part[1] + "." + part[2], malformed},
		{"base64 of another alphabet", part[0] + "." + part[1] + "." + strings.Repeat("+/", 21) + "A", malformed},
		{"stray bits in the signature", whole[:len(whole)-1] + nextChar(whole[len(whole)-1]), malformed},
		{"scheme in front", "Bearer " + whole, malformed},
		{"JSON, flattened", fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, part[0], part[1], part[2]), malformed},
		{"JSON, general", fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, part[1], part[0], part[2]), malformed},
		{"bare claims", good, malformed},
		{"JWE", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA", malformed},
		{"over 8 KiB", claims(`{"sub":"ana","exp":946688400,"x":"` + strings.Repeat("x", 8<<10) + `"}`), "token is too long"},

		// The header.
		{"header no JSON", sign(`alg`, good), malformed},
		{"header no object", sign(`["HS256"]`, good), malformed},
		{"header null", sign(`null`, good), malformed},
		{"header with more behind", sign(header+`{}`, good), malformed},
		{"no alg", sign(`{"typ":"JWT"}`, good), malformed},
		{"alg a number", sign(`{"alg":256}`, good), malformed},
		{"alg none", sign(`{"alg":"none"}`, good), algorithm},
		{"alg None", sign(`{"alg":"None"}`, good), algorithm},
		{"alg none, unsigned", encodeJWT(`{"alg":"none"}`, good) + ".", malformed},
		{"alg in small letters", sign(`{"alg":"hs256"}`, good), algorithm},
		{"alg twice", sign(`{"alg":"HS256","alg":"none"}`, good), algorithm},
		{"HS384", signHMAC(sha512.New384, authSecret, `{"alg":"HS384"}`, good), algorithm},
		{"HS512", signHMAC(sha512.New, authSecret, `{"alg":"HS512"}`, good), algorithm},
		{"RS256", signRS256(t, `{"alg":"RS256"}`, good), algorithm},
		{"RS256 that says HS256", signRS256(t, `{"alg":"HS256"}`, good), signature},
		{"HS512 that says HS256", signHMAC(sha512.New, authSecret, header, good), signature},
		{"crit", sign(`{"alg":"HS256","crit":["exp"],"exp":1}`, good), "token asks for an extension"},
		{"crit empty", sign(`{"alg":"HS256","crit":[]}`, good), "token asks for an extension"},
		{"payload not in base64 (RFC 7797)", sign(`{"alg":"HS256","b64":false,"crit":["b64"]}`, good), "token asks for an extension"},
		{"nested", sign(`{"alg":"HS256","cty":"JWT"}`, whole), "token is of another type"},
		{"nested without saying so", sign(header, whole), malformed},
		{"a logout token (OpenID Connect)", sign(`{"alg":"HS256","typ":"logout+jwt"}`, good), "token is of another type"},

		// The signature.
		{"another secret", signHMAC(sha256.New, strings.Repeat("x", 32), header, good), signature},
		{"no secret", signHMAC(sha256.New, "", header, good), signature},
		{"cut signature", whole[:len(whole)-4], signature},
		{"another's signature", part[0] + "." + part[1] + "." + strings.Split(claims(`{}`), ".")[2], signature},
		{"key in the header", signHMAC(sha256.New, "AAA", `{"alg":"HS256","jwk":{"kty":"oct","k":"QUFB"}}`, good), signature},

		// The claims.
		{"claims no JSON", claims(`sub`), malformed},
		{"claims no object", claims(`["ana"]`), malformed},
		{"claims null", claims(`null`), malformed},
		{"claims with more behind", claims(good + `{}`), malformed},
		{"claims not UTF-8", claims("{\"sub\":\"an\xff\",\"exp\":946688400}"), malformed},
		{"expired", claims(`{"sub":"ana","exp":946684799}`), "token expired"},
		{"expiring now", claims(`{"sub":"ana","exp":946684800}`), "token expired"},
		{"no exp", claims(`{"sub":"ana"}`), "token has no expiry"},
		{"exp a string", claims(`{"sub":"ana","exp":"946688400"}`), date},
		{"exp null", claims(`{"sub":"ana","exp":null}`), date},
		{"not valid yet", claims(`{"sub":"ana","exp":946688400,"nbf":946684831}`), "token is not valid yet"},
		{"nbf a string", claims(`{"sub":"ana","exp":946688400,"nbf":"1"}`), date},
		{"iat a string", claims(`{"sub":"ana","exp":946688400,"iat":"1"}`), date},
		{"no sub", claims(`{"exp":946688400}`), user},
		{"sub of other case", claims(`{"Sub":"ana","exp":946688400}`), user},
		{"sub empty", claims(`{"sub":"","exp":946688400}`), user},
		{"sub null", claims(`{"sub":null,"exp":946688400}`), user},
		{"sub a number", claims(`{"sub":7,"exp":946688400}`), user},
		{"sub with a space at its end", claims(`{"sub":"ana ","exp":946688400}`), user},
		{"sub with a line end", claims(`{"sub":"a\na","exp":946688400}`), user},
		{"sub of 129 bytes", claims(`{"sub":"` + strings.Repeat("a", 129) + `","exp":946688400}`), user},
		{"role a list", claims(`{"sub":"ana","role":["admin"],"exp":946688400}`), role},
		{"role true", claims(`{"sub":"ana","role":true,"exp":946688400}`), role},
		{"role null", claims(`{"sub":"ana","role":null,"exp":946688400}`), role},
		{"role empty", claims(`{"sub":"ana","role":"","exp":946688400}`), role},
		{"role with a line end", claims(`{"sub":"ana","role":"a\nb","exp":946688400}`), role},
		{"role of 129 bytes", claims(`{"sub":"ana","role":"` + strings.Repeat("a", 129) + `","exp":946688400}`), role},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, err := newHS256(t).Authenticate(t.Context(), test.token)
				if !errors.Is(err, chat.ErrUnauthenticated) {
					t.Fatalf("%+v, %v, want ErrUnauthenticated", got, err)
				}
				if diff := cmp.Diff("chat: unauthenticated: "+test.want, err.Error()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestConfiguredIssuerAndAudienceMustMatch(t *testing.T) {
	const issuer, audience = "token is from another issuer", "token is for another audience"
	tests := []struct{ name, claims, want string }{
		{"no issuer", `"aud":"chat"`, issuer},
		{"another issuer", `"iss":"you","aud":"chat"`, issuer},
		{"issuer of other case", `"iss":"ME","aud":"chat"`, issuer},
		{"issuer in a list", `"iss":["me"],"aud":"chat"`, issuer},
		{"no audience", `"iss":"me"`, audience},
		{"another audience", `"iss":"me","aud":"mail"`, audience},
		{"other audiences", `"iss":"me","aud":["mail","chats"]`, audience},
		{"audience within an object", `"iss":"me","aud":{"chat":"chat"}`, audience},
		{"audience beside what is no string", `"iss":"me","aud":["chat",7]`, audience},
	}
	auth := newHS256(t, chat.WithIssuer("me"), chat.WithAudience("chat"))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			token := signHMAC(sha256.New, authSecret, `{"alg":"HS256"}`, `{"sub":"ana","exp":4000000000,`+test.claims+`}`)
			_, err := auth.Authenticate(t.Context(), token)
			if !errors.Is(err, chat.ErrUnauthenticated) || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("%v, want ErrUnauthenticated: %s", err, test.want)
			}
		})
	}
}

// rsaKey is one key for all tests: making one takes long.
func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := onceRSA()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var onceRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// encodeJWT is what gets signed of a token.
func encodeJWT(header, claims string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
}

func signHMAC(h func() hash.Hash, secret, header, claims string) string {
	mac := hmac.New(h, []byte(secret))
	mac.Write([]byte(encodeJWT(header, claims)))
	return encodeJWT(header, claims) + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func signRS256(t *testing.T, header, claims string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(encodeJWT(header, claims)))
	signature, err := rsa.SignPKCS1v15(nil, rsaKey(t), crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return encodeJWT(header, claims) + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func signES256(t *testing.T, key *ecdsa.PrivateKey, header, claims string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(encodeJWT(header, claims)))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return encodeJWT(header, claims) + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func jwkOf(t *testing.T, id string, public any) []byte {
	t.Helper()
	key, err := jwk.FromRaw(public)
	if err == nil {
		err = key.Set(jwk.KeyIDKey, id)
	}
	text, marshalErr := json.Marshal(key)
	if err := errors.Join(err, marshalErr); err != nil {
		t.Fatal(err)
	}
	return text
}

func pemOf(t *testing.T, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// nextChar is the base64 character after c: at the end of a 32-byte signature
// it decodes to the same bytes.
func nextChar(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)+1])
}

func TestUsernamesShow(t *testing.T) {
	tests := map[string]struct {
		names []string
		want  bool
	}{
		"letters of any script": {[]string{"ana", "Ana María", "Ωμέγα", "андрей", "美咲", "한글", "नमस्ते", "e\u0301va", "ᄒ\u1161ᆫ"}, true},
		"other names":           {[]string{"ana@example.com", "auth0|123", "a/b", "...", ".ana", "a.", "-", "★", "❤\ufe0f", "葛\U000e0100"}, true},
		"a Hangul filler":       {[]string{"\u3164", "\u115f", "\u1160", "\uffa0", "\u3164\u3164"}, false},
		"other blanks":          {[]string{"\u2800", "\U0001d159", "\U00013441", "\U00013442"}, false},
		"a blank in a name":     {[]string{"ana\u3164", "\u2800ana", "a\uffa0b"}, false},
		"marks alone":           {[]string{"\u0301", "\u0301\u0302", "\ufe0f", "\u034f", "\u0301 \u0301", "\u17b4", "\u0903"}, false},
		"spaces":                {[]string{" ", "\u00a0", "\u3000", "a\u00a0b", " a", "a "}, false},
		"format characters":     {[]string{"\u200b", "a\u200db", "\u202e", "\u00ad", "\ufeff", "\U000e0041"}, false},
		"parts of a path":       {[]string{".", ".."}, false},
	}
	for what, tt := range tests {
		for _, name := range tt.names {
			if got := chat.ValidUsername(name); got != tt.want {
				t.Errorf("%s: ValidUsername(%q) = %v, want %v", what, name, got, tt.want)
			}
			if got := chat.ValidChannel("@" + name); got != tt.want {
				t.Errorf("%s: ValidChannel(%q) = %v, want %v", what, "@"+name, got, tt.want)
			}
		}
	}
	// Nothing that Unicode says not to show is a name by itself.
	for name, table := range unicode.Properties {
		if name != "Other_Default_Ignorable_Code_Point" && name != "Variation_Selector" && name != "White_Space" {
			continue
		}
		for r := range rune(unicode.MaxRune + 1) {
			if unicode.Is(table, r) && chat.ValidUsername(string(r)) {
				t.Errorf("%s: %U is a name", name, r)
			}
		}
	}
}

func TestNamesThatDoNotShowGetNoTokenAndNoFile(t *testing.T) {
	s := chatserver.Serve(t)
	for _, name := range []string{"\u3164", ".", "..", "\u0301"} {
		if _, err := newHS256(t).Issue(chat.User{Name: name}); err == nil {
			t.Errorf("a token for %q", name)
		}
		if _, err := newHS256(t).Issue(chat.User{Name: "ana", Role: name}); err == nil {
			t.Errorf("a token for the role %q", name)
		}
		if _, err := chat.ParseUsers(strings.NewReader("bob:$2y$05$" + strings.Repeat("a", 53) + "\n" + name + ":$2y$05$" + strings.Repeat("a", 53))); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("a file with %q: %v, want an error about line 2", name, err)
		}
		resp, body := s.Request("POST", "/users/"+url.PathEscape(name)+"/disconnect", s.Token("admin"), "")
		chatserver.WantProblem(t, resp, body, 400)
	}
}
