// Command sleep runs a service on a machine that is suspended for an hour: the wall clock
// jumps, the other clock does not. It is built with the overlay of skew.go and prints
// whether what expired meanwhile has ended.
package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

const patience = 30 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	history := chat.NewMemoryHistory(chat.MemoryLimits{Age: time.Hour})
	signer := must(chat.NewHS256([]byte("a program's secret of 32 bytes, no less"), chat.WithTokenTTL(time.Hour/2)))
	service := must(chat.New(signer, chat.WithHistory(history)))
	server := httptest.NewServer(service)
	fetched := keys(ctx)

	dial := func() *client.Client {
		token := must(signer.Issue(chat.User{Name: "admin", Role: chat.RoleAdmin}))
		return must(client.Dial(ctx, server.URL, client.WithToken(token.AccessToken)))
	}
	talker, listener := dial(), dial()
	must(talker.Broadcast(ctx, "before"))
	before := fetched.Load()

	time.JumpClock(3600)
	_, err := talker.Broadcast(ctx, "after")
	fmt.Println("a command of an expired token is carried out:", err == nil)
	page, err := history.After(ctx, "", chat.Position{}, chat.Limit{Count: 10})
	if err != nil && !errors.Is(err, chat.ErrGone) {
		fatal(err)
	}
	fmt.Println("messages in the history:", len(page))

	resumed := time.Now()
	for _, err := range listener.Events(ctx) {
		if err != nil {
			fmt.Println("the idle socket ends as unauthenticated:", errors.Is(err, client.ErrUnauthenticated))
		}
	}
	fmt.Println("and soon:", time.Since(resumed) < patience)
	for fetched.Load() == before && time.Since(resumed) < patience {
		<-time.After(100 * time.Millisecond)
	}
	fmt.Println("keys are fetched again:", fetched.Load() > before)
}

// keys refreshes the keys of a provider and counts how often it fetches them.
func keys(ctx context.Context) *atomic.Int32 {
	var fetched atomic.Int32
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		fatal(err)
	}
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{
			"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "1",
			"x": base64.RawURLEncoding.EncodeToString(public),
		}}})
	}))
	must(chat.NewJWKS(ctx, provider.URL))
	return &fetched
}

func must[T any](v T, err error) T {
	if err != nil {
		fatal(err)
	}
	return v
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
