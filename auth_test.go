package chat_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
)

const authSecret = "0123456789abcdef0123456789abcdef"

// The clock of a synctest bubble starts at the year 2000, at these seconds.
const bubbleStart = 946684800

func TestIssuedTokensAreValidUntilTheyExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth := newHS256(t, chat.WithTokenTTL(90*time.Second), chat.WithIssuer("me"), chat.WithAudience("chat"), chat.WithRoleClaim("r"))
		ana := chat.User{Name: "ana", Role: "admin"}
		token, err := auth.Issue(ana)
		if err != nil {
			t.Fatal(err)
		}
		if token.ExpiresIn != 90*time.Second {
			t.Errorf("expires in %v", token.ExpiresIn)
		}
		var claims map[string]any
		payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(token.AccessToken, ".")[1])
		if err := json.Unmarshal(payload, &claims); err != nil {
			t.Fatal(err)
		}
		if jti, _ := claims["jti"].(string); len(jti) < 22 {
			t.Errorf("jti %q", jti)
		}
		delete(claims, "jti")
		want := map[string]any{
			"sub": "ana", "r": "admin", "iss": "me", "aud": []any{"chat"},
			"iat": float64(bubbleStart), "exp": float64(bubbleStart + 90),
		}
		if diff := cmp.Diff(want, claims); diff != "" {
			t.Errorf("claims (-want +got):\n%s", diff)
		}

		<-time.After(90*time.Second - 1)
		got, err := auth.Authenticate(t.Context(), token.AccessToken)
		if err != nil {
			t.Fatalf("a moment before its end: %v", err)
		}
		if diff := cmp.Diff(chat.Identity{User: ana, Expires: time.Unix(bubbleStart+90, 0)}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		<-time.After(1)
		if _, err := auth.Authenticate(t.Context(), token.AccessToken); !errors.Is(err, chat.ErrUnauthenticated) {
			t.Errorf("at its end: %v", err)
		}
	})
}

func TestIssue(t *testing.T) {
	auth := newHS256(t)
	token, err := auth.Issue(chat.User{Name: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := auth.Authenticate(t.Context(), token.AccessToken); err != nil || got.User.Role != chat.RoleUser {
		t.Errorf("without a role: %+v, %v", got.User, err)
	}
	if token.ExpiresIn != 15*time.Minute {
		t.Errorf("by default expires in %v", token.ExpiresIn)
	}
	for _, user := range []chat.User{{}, {Role: "admin"}, {Name: "ana\n"}, {Name: "ana", Role: " "}} {
		if _, err := auth.Issue(user); !errors.Is(err, chat.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", user, err)
		}
	}
}

func TestTokenOptionsAreChecked(t *testing.T) {
	secret := []byte(authSecret)
	publicPEM := pemOf(t, &rsaKey(t).PublicKey)
	hs256 := func(secret []byte, opts ...chat.HS256Option) func() error {
		return func() error { _, err := chat.NewHS256(secret, opts...); return err }
	}
	jwks := func(url string, opts ...chat.JWKSOption) func() error {
		return func() error { _, err := chat.NewJWKS(t.Context(), url, opts...); return err }
	}
	tests := []struct {
		name  string
		build func() error
		want  string
	}{
		{"secret too short", hs256(secret[:31]), "31 bytes"},
		{"no secret", hs256(nil), "0 bytes"},
		{"public key as secret", hs256(publicPEM), "public key"},
		{"public key after a comment", hs256(append([]byte("# key\n"), publicPEM...)), "public key"},
		{"nil option", hs256(secret, nil), "HS256Option is nil"},
		{"nil option for a JWKS", jwks("https://localhost", nil), "JWKSOption is nil"},
		{"no issuer", hs256(secret, chat.WithIssuer("")), "WithIssuer"},
		{"no audience", hs256(secret, chat.WithAudience("")), "WithAudience"},
		{"no role claim", hs256(secret, chat.WithRoleClaim("")), "WithRoleClaim"},
		{"role claim taken", hs256(secret, chat.WithRoleClaim("sub")), "WithRoleClaim"},
		{"no time to live", hs256(secret, chat.WithTokenTTL(0)), "WithTokenTTL"},
		{"no logger", jwks("https://localhost", chat.WithJWKSLogger(nil)), "WithJWKSLogger"},
		{"no client", jwks("https://localhost", chat.WithHTTPClient(nil)), "WithHTTPClient"},
		{"no issuer for a JWKS", jwks("https://localhost", chat.WithIssuer("")), "WithIssuer"},
		{"keys over plain http", jwks("http://id.example.com/jwks"), "http://id.example.com/jwks"},
		{"keys from a file", jwks("file:///etc/keys"), "file:///etc/keys"},
		{"keys from nowhere", jwks(""), "no absolute URL"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.build()
			if !errors.Is(err, chat.ErrInvalid) || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("%v, want ErrInvalid about %q", err, test.want)
			}
		})
	}
}

// An option that does not apply to a constructor does not compile: its type is not
// assignable to the constructor's parameter.
func TestTokenOptionsFitTheirConstructorsOnly(t *testing.T) {
	constructors := map[string]any{"NewHS256": chat.NewHS256, "NewJWKS": chat.NewJWKS}
	tests := map[string]struct {
		option any
		want   []string
	}{
		"WithIssuer":     {chat.WithIssuer, []string{"NewHS256", "NewJWKS"}},
		"WithAudience":   {chat.WithAudience, []string{"NewHS256", "NewJWKS"}},
		"WithRoleClaim":  {chat.WithRoleClaim, []string{"NewHS256", "NewJWKS"}},
		"WithTokenTTL":   {chat.WithTokenTTL, []string{"NewHS256"}},
		"WithHTTPClient": {chat.WithHTTPClient, []string{"NewJWKS"}},
		"WithJWKSLogger": {chat.WithJWKSLogger, []string{"NewJWKS"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for constructor, fn := range constructors {
				options := reflect.TypeOf(fn).In(reflect.TypeOf(fn).NumIn() - 1) // a slice
				if result := reflect.TypeOf(test.option).Out(0); result.AssignableTo(options.Elem()) {
					got = append(got, constructor)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("constructors that take it (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATokenAsJSONIsTheAnswerToALogin(t *testing.T) {
	token := chat.Token{AccessToken: "a.b-_.c", ExpiresIn: 90*time.Second + time.Second/2}
	const want = `{"access_token":"a.b-_.c","token_type":"bearer","expires_in":90}`
	for what, value := range map[string]any{"value": token, "pointer": &token} {
		got, err := json.Marshal(value)
		if diff := cmp.Diff(want, string(got)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", what, err, diff)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	auth := newHS256(t)
	token, err := auth.Issue(chat.User{Name: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, value := range []any{auth, token, &token} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("login", "value", value)
		slog.New(slog.NewJSONHandler(&out, nil)).With("value", value).Info("login", slog.Group("group", "value", value))
		slog.New(slog.NewTextHandler(&out, nil)).Info("login", "value", value)
	}
	for what, secret := range map[string]string{
		"the token": token.AccessToken, "the secret": authSecret,
		"the secret as numbers": "48 49 50", "the secret in hex": "303132",
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s in:\n%s", what, &out)
		}
	}
}

func TestJWKS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, `{"keys":[%s,%s]}`, jwkOf(t, "e", key.Public()), jwkOf(t, "r", rsaKey(t).Public()))
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	auth, err := chat.NewJWKS(ctx, server.URL, chat.WithHTTPClient(server.Client()), chat.WithIssuer("idp"))
	if err != nil {
		t.Fatal(err)
	}
	const claims = `{"sub":"ana","role":"admin","iss":"idp","exp":4000000000}`
	want := chat.Identity{User: chat.User{Name: "ana", Role: "admin"}, Expires: time.Unix(4000000000, 0)}
	for alg, token := range map[string]string{
		"ES256": signES256(t, key, `{"alg":"ES256","kid":"e"}`, claims),
		"RS256": signRS256(t, `{"alg":"RS256","kid":"r"}`, claims),
	} {
		got, err := auth.Authenticate(t.Context(), token)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", alg, diff)
		}
	}

	public := pemOf(t, &rsaKey(t).PublicKey)
	block, _ := pem.Decode(public)
	refused := map[string]string{
		"public key in PEM as a secret": signHMAC(sha256.New, string(public), `{"alg":"HS256","kid":"r"}`, claims),
		"public key in DER as a secret": signHMAC(sha256.New, string(block.Bytes), `{"alg":"HS256","kid":"r"}`, claims),
		"modulus as a secret":           signHMAC(sha256.New, string(rsaKey(t).N.Bytes()), `{"alg":"HS256","kid":"r"}`, claims),
		"none":                          encodeJWT(`{"alg":"none","kid":"r"}`, claims) + ".AAAA",
		"expired, by an unknown key":    signRS256(t, `{"alg":"RS256","kid":"?"}`, `{"sub":"ana","iss":"idp","exp":1}`),
		"of another issuer":             signRS256(t, `{"alg":"RS256","kid":"r"}`, `{"sub":"ana","exp":4000000000}`),
		"the other key's name":          signRS256(t, `{"alg":"RS256","kid":"e"}`, claims),
		"of an unknown key":             signRS256(t, `{"alg":"RS256","kid":"?"}`, claims),
	}
	for name, token := range refused {
		if _, err := auth.Authenticate(t.Context(), token); !errors.Is(err, chat.ErrUnauthenticated) {
			t.Errorf("%s: %v, want ErrUnauthenticated", name, err)
		}
	}

	down.Store(true)
	if _, err := auth.Authenticate(t.Context(), signRS256(t, `{"alg":"RS256","kid":"r"}`, claims)); err != nil {
		t.Errorf("by a known key while the provider is down: %v", err)
	}
	_, err = auth.Authenticate(t.Context(), signRS256(t, `{"alg":"RS256","kid":"new"}`, claims))
	if !errors.Is(err, chat.ErrUnavailable) || errors.Is(err, chat.ErrUnauthenticated) {
		t.Errorf("by an unknown key while the provider is down: %v, want ErrUnavailable", err)
	}
	if _, err := chat.NewJWKS(ctx, server.URL); !errors.Is(err, chat.ErrUnavailable) || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("starting while the provider is down: %v, want ErrUnavailable and %s", err, server.URL)
	}
}

// Eight clients connect with tokens that their provider has just signed, by a clock that
// is ahead.
func TestAProvidersClockMayBeAhead(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[%s]}`, jwkOf(t, "e", key.Public()))
	}))
	defer provider.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	auth, err := chat.NewJWKS(ctx, provider.URL, chat.WithHTTPClient(provider.Client()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := chatserver.ServeAuth(t, l, (&net.Dialer{}).DialContext, newHS256(t), auth)
	for ahead, want := range map[time.Duration]int{0: 101, time.Second / 2: 101, 10 * time.Second: 101, 2 * time.Minute: 401} {
		for i := range 8 {
			nbf := float64(time.Now().Add(ahead).UnixMilli()) / 1000
			token := signES256(t, key, `{"alg":"ES256","kid":"e"}`, fmt.Sprintf(`{"sub":"ana%d","nbf":%.3f,"iat":%.3f,"exp":%.3f}`, i, nbf, nbf, nbf+300))
			if resp, body := requestRaw(s, t, "/ws/chat", token, nil); resp.StatusCode != want {
				t.Errorf("%v ahead, client %d: %d %s, want %d", ahead, i, resp.StatusCode, body, want)
			}
		}
	}
}

func TestPasswordLogin(t *testing.T) {
	hash := func(secret string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return string(hash)
	}
	users, err := chat.ParseUsers(strings.NewReader("ana:" + hash("secreto") + ":admin\nbob:" + hash("clave")))
	if err != nil {
		t.Fatal(err)
	}
	login := chat.NewPasswordLogin(users, newHS256(t))
	check := func(name, secret string, want chat.User) {
		t.Helper()
		token, err := login.Login(t.Context(), name, secret)
		if want == (chat.User{}) {
			if diff := cmp.Diff("chat: unauthenticated: wrong username or password", fmt.Sprint(err)); diff != "" || !errors.Is(err, chat.ErrUnauthenticated) {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := login.Authenticate(t.Context(), token.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.User); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	check("ana", "secreto", chat.User{Name: "ana", Role: "admin"})
	check("bob", "clave", chat.User{Name: "bob", Role: "user"})
	check("ana", "clave", chat.User{})
	check("ana", "", chat.User{})
	check("eva", "secreto", chat.User{})

	err = users.Load(strings.NewReader("eva:" + hash("secreto") + "\nana"))
	if !errors.Is(err, chat.ErrInvalid) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("loading a bad file: %v", err)
	}
	check("eva", "secreto", chat.User{})
	check("ana", "secreto", chat.User{Name: "ana", Role: "admin"})

	if err := users.Load(strings.NewReader("eva:" + hash("secreto"))); err != nil {
		t.Fatal(err)
	}
	check("ana", "secreto", chat.User{})
	check("eva", "secreto", chat.User{Name: "eva", Role: "user"})

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = login.Login(gone, "eva", "secreto")
	if !errors.Is(err, context.Canceled) || !errors.Is(err, chat.ErrUnavailable) || errors.Is(err, chat.ErrUnauthenticated) {
		t.Errorf("for one who left: %v, want context.Canceled and ErrUnavailable", err)
	}
	_, err = new(chat.Users).Verify(t.Context(), "ana", "secreto")
	if !errors.Is(err, chat.ErrUnauthenticated) {
		t.Errorf("without any users: %v", err)
	}
}

func TestUsersLoadWhileOthersLogIn(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secreto"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := "ana:" + string(hash)
	users, err := chat.ParseUsers(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if _, err := users.Verify(t.Context(), "ana", "secreto"); err != nil {
					t.Error(err)
				}
				if err := users.Load(strings.NewReader(file)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestMoreLoginsThanCanWaitAreTurnedAway(t *testing.T) {
	users, err := chat.ParseUsers(strings.NewReader("ana:$2y$10$" + strings.Repeat("a", 53)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var busy atomic.Int64
	var wg sync.WaitGroup
	for range 3000 { // 2,048 may wait
		wg.Go(func() {
			_, err := users.Verify(ctx, "ana", "guess")
			if errors.Is(err, chat.ErrBusy) {
				busy.Add(1)
				if !errors.Is(err, chat.ErrUnavailable) || errors.Is(err, chat.ErrUnauthenticated) {
					t.Errorf("%v, want ErrUnavailable", err)
				}
				cancel() // the others need not have their turn
			}
		})
	}
	wg.Wait()
	if busy.Load() == 0 {
		t.Error("every one was let wait")
	}
}

func TestHashPassword(t *testing.T) {
	hash, err := chat.HashPassword("secreto")
	if err != nil {
		t.Fatal(err)
	}
	users, err := chat.ParseUsers(strings.NewReader("ana:" + hash))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := users.Verify(t.Context(), "ana", "secreto"); err != nil {
		t.Error(err)
	}
	for _, secret := range []string{"", strings.Repeat("x", 73), "x\x00"} {
		if _, err := chat.HashPassword(secret); !errors.Is(err, chat.ErrInvalid) {
			t.Errorf("%d bytes: %v, want ErrInvalid", len(secret), err)
		}
	}
}

func FuzzParseUsers(f *testing.F) {
	hash := "$2y$05$" + strings.Repeat("a", 53)
	f.Add("ana:" + hash + ":admin\r\n# c\n\nbob:" + hash)
	f.Add("ana:" + hash + "\nana:" + hash)
	f.Add("\ufeffana:::")
	f.Fuzz(func(t *testing.T, file string) {
		if _, err := chat.ParseUsers(strings.NewReader(file)); err != nil && !errors.Is(err, chat.ErrInvalid) {
			t.Errorf("%v, want ErrInvalid", err)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	auth, err := chat.NewHS256([]byte(authSecret))
	if err != nil {
		b.Fatal(err)
	}
	token, err := auth.Issue(chat.User{Name: "ana", Role: "admin"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := auth.Authenticate(b.Context(), token.AccessToken); err != nil {
			b.Fatal(err)
		}
	}
}

func newHS256(t *testing.T, opts ...chat.HS256Option) *chat.HS256 {
	t.Helper()
	auth, err := chat.NewHS256([]byte(authSecret), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return auth
}
