package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

// The client's log lines and errors contain no token, no password and no content.
func TestNothingSecretIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users, err := chat.ParseUsers(strings.NewReader("ana:$2y$04$swMcZUBPNP6fe9ZRQd80j.F6XcE9VA.z1G03CUCau/0J9hYzQng2i:admin\n"))
		if err != nil {
			t.Fatal(err)
		}
		signer, err := chat.NewHS256(secret, chat.WithTokenTTL(5*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer // of the log, and of errors
		var mu sync.Mutex
		var tokens []string
		down := false
		s := servePipesAs(t, chat.NewPasswordLogin(users, signer), func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				refuse := down
				if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
					tokens = append(tokens, token)
				}
				mu.Unlock()
				if strings.Contains(r.URL.String(), "eyJ") {
					t.Errorf("a token in %s", r.URL)
				}
				if refuse {
					body, _ := io.ReadAll(r.Body)
					http.Error(w, r.Header.Get("Authorization")+string(body), http.StatusServiceUnavailable)
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		logger := slog.New(slog.NewTextHandler(&lockedWriter{w: &said, mu: &mu}, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c := dialPipes(t, s, client.WithLogin("ana", "correct horse"), client.WithLogger(logger))
		if _, err := c.Broadcast(t.Context(), "the content"); err != nil {
			t.Fatal(err)
		}
		set := func(to bool) {
			mu.Lock()
			defer mu.Unlock()
			down = to
		}
		time.AfterFunc(time.Minute, func() { set(true) }) // no new token
		time.AfterFunc(10*time.Minute, func() { set(false) })
		o := during(t, 20*time.Minute, c)
		if o.connected != 2 || len(o.lost) == 0 {
			t.Errorf("got %+v", o)
		}
		set(true)
		_, err = c.Messages(t.Context(), client.Query{})
		_, again := client.Dial(t.Context(), s.url, client.WithHTTPClient(s.http), client.WithLogin("ana", "correct horse"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, ended := c.Broadcast(ctx, "the content")
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&said, o.lost, errors.Join(err, again, ended))
		if err == nil || again == nil || ended == nil || !strings.Contains(said.String(), "not connected, retrying") {
			t.Errorf("there is nothing to look at: %s", said.String())
		}
		for _, hidden := range append(tokens, "correct horse", "the content", "Bearer", `"password`) {
			if strings.Contains(said.String(), hidden) {
				t.Errorf("%q is in:\n%s", hidden, said.String())
			}
		}
	})
}

// lockedWriter writes under another owner's lock.
type lockedWriter struct {
	w  io.Writer
	mu *sync.Mutex
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestPlainHTTPIsLogged(t *testing.T) {
	for url, want := range map[string]bool{
		"http://chat.example.com": true, "http://10.0.0.1:8080/chat": true, "http://localhost.example.com": true,
		"https://chat.example.com": false, "http://localhost:8080": false, "http://127.0.0.1": false, "http://[::1]:8080": false,
	} {
		var logged bytes.Buffer
		_, err := client.NewAPI(url, client.WithLogin("ana", "hunter2"), client.WithLogger(slog.New(slog.NewTextHandler(&logged, nil))))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(logged.String(), "level=WARN"); got != want || strings.Contains(logged.String(), "hunter2") {
			t.Errorf("%s: logged %q", url, &logged)
		}
	}
}
