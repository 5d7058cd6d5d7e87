package chat_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat"
)

func TestARepeatedTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth := newHS256(t)
		token := signHMAC(sha256.New, authSecret, `{"alg":"HS256"}`, fmt.Sprintf(`{"sub":"ana","nbf":%d,"exp":%d}`, bubbleStart+30, bubbleStart+60))
		for range 60 {
			if _, err := auth.Authenticate(t.Context(), token); err != nil {
				t.Fatalf("after %v: %v", time.Now().Unix()-bubbleStart, err)
			}
			<-time.After(time.Second)
		}
		for range 2 {
			if _, err := auth.Authenticate(t.Context(), token); !errors.Is(err, chat.ErrUnauthenticated) || !strings.HasSuffix(err.Error(), "token expired") {
				t.Errorf("when it has expired: %v, want ErrUnauthenticated: token expired", err)
			}
		}
	})
}

func TestATokenLikeARepeatedOneIsChecked(t *testing.T) {
	auth := newHS256(t)
	const header, claims = `{"alg":"HS256"}`, `{"sub":"ana","role":"user","exp":4000000000}`
	token := signHMAC(sha256.New, authSecret, header, claims)
	other := signHMAC(sha256.New, strings.Repeat("x", 32), header, claims)
	for range 2 {
		if _, err := auth.Authenticate(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if _, err := auth.Authenticate(t.Context(), other); !errors.Is(err, chat.ErrUnauthenticated) {
			t.Errorf("the same claims by another secret: %v, want ErrUnauthenticated", err)
		}
		for i := range token {
			changed := token[:i] + string(token[i]^1) + token[i+1:]
			if _, err := auth.Authenticate(t.Context(), changed); !errors.Is(err, chat.ErrUnauthenticated) {
				t.Errorf("changed in byte %d: %v, want ErrUnauthenticated", i, err)
			}
		}
	}
}

func TestAuthenticatorsShareNoTokens(t *testing.T) {
	token := signHMAC(sha256.New, authSecret, `{"alg":"HS256"}`, `{"sub":"ana","role":"admin","rank":"user","exp":4000000000}`)
	if _, err := newHS256(t).Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	otherSecret, err := chat.NewHS256([]byte(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	for name, auth := range map[string]*chat.HS256{
		"of another secret":   otherSecret,
		"of an issuer":        newHS256(t, chat.WithIssuer("me")),
		"of another audience": newHS256(t, chat.WithAudience("chat")),
	} {
		if _, err := auth.Authenticate(t.Context(), token); !errors.Is(err, chat.ErrUnauthenticated) {
			t.Errorf("%s: %v, want ErrUnauthenticated", name, err)
		}
	}
	who, err := newHS256(t, chat.WithRoleClaim("rank")).Authenticate(t.Context(), token)
	if err != nil || who.User.Role != "user" {
		t.Errorf("with the role in another claim: %+v, %v", who, err)
	}
}

func TestARepeatedTokenEndsWithItsKey(t *testing.T) {
	keys := make([]*ecdsa.PrivateKey, 3)
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	token := func(i int) string {
		return signES256(t, keys[i], fmt.Sprintf(`{"alg":"ES256","kid":"%d"}`, i), `{"sub":"ana","exp":4000000000}`)
	}
	var published atomic.Int64
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i := published.Load()
		fmt.Fprintf(w, `{"keys":[%s]}`, jwkOf(t, fmt.Sprint(i), keys[i].Public()))
	}))
	defer provider.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	auth, err := chat.NewJWKS(ctx, provider.URL, chat.WithHTTPClient(provider.Client()))
	if err != nil {
		t.Fatal(err)
	}
	old := token(0)
	for i := range keys[1:] {
		for range 3 {
			if _, err := auth.Authenticate(t.Context(), old); err != nil {
				t.Fatalf("by key %d: %v", i, err)
			}
		}
		published.Store(int64(i + 1))
		fresh := token(i + 1)
		if _, err := auth.Authenticate(t.Context(), fresh); err != nil { // fetches the keys
			t.Fatalf("by key %d: %v", i+1, err)
		}
		if _, err := auth.Authenticate(t.Context(), old); !errors.Is(err, chat.ErrUnauthenticated) {
			t.Errorf("by key %d, which is no longer published: %v, want ErrUnauthenticated", i, err)
		}
		old = fresh
	}
}

func TestRepeatedTokensAreSafeForConcurrentUse(t *testing.T) {
	auth := newHS256(t)
	tokens := make([]string, 100)
	for i := range tokens {
		token, err := auth.Issue(chat.User{Name: fmt.Sprint("user", i)})
		if err != nil {
			t.Fatal(err)
		}
		tokens[i] = token.AccessToken
	}
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 3 {
				for i, token := range tokens {
					who, err := auth.Authenticate(t.Context(), token)
					if want := fmt.Sprint("user", i); err != nil || who.User.Name != want {
						t.Errorf("%+v, %v, want %s", who, err, want)
					}
				}
			}
		})
	}
	workers.Wait()
}
