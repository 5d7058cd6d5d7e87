package redisregistry_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// Two nodes on one Redis: what one publishes reaches the sockets of the other.
func Example() {
	addr, stopRedis := exampleRedis()
	defer stopRedis()
	auth, err := chat.NewHS256([]byte("a secret that both share, 32 bytes"))
	if err != nil {
		panic(err)
	}
	serve := func() (*chat.Service, *httptest.Server, func()) {
		client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{addr}})
		registry, err := redisregistry.New(client, redisregistry.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			panic(err)
		}
		service, err := chat.New(auth, chat.WithRegistry(registry))
		if err != nil {
			panic(err)
		}
		for registry.Check(context.Background()) != nil { // what a readiness probe asks
			<-time.After(10 * time.Millisecond)
		}
		server := httptest.NewServer(service)
		return service, server, func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = service.Shutdown(ctx)
			server.Close()
			_ = registry.Shutdown(ctx)
			_ = client.Close()
		}
	}
	here, _, stopHere := serve()
	defer stopHere()
	_, there, stopThere := serve()
	defer stopThere()

	ctx := context.Background()
	token, err := auth.Issue(chat.User{Name: "ana"})
	if err != nil {
		panic(err)
	}
	ana, _, err := websocket.Dial(ctx, there.URL+"/ws/chat?token="+token.AccessToken, nil)
	if err != nil {
		panic(err)
	}
	defer ana.CloseNow()
	if _, _, err := ana.Read(ctx); err != nil { // the welcome
		panic(err)
	}

	m, err := here.Broadcast(ctx, chat.Message{Sender: "ops", Content: "lunch is ready"})
	if err != nil {
		panic(err)
	}
	for {
		_, text, err := ana.Read(ctx)
		if err != nil {
			panic(err)
		}
		if got := string(text); len(got) > 17 && got[:17] == `{"type":"message"` {
			fmt.Println("ana got the message", m.Position.Seq)
			return
		}
	}
	// Output: ana got the message 1
}

// exampleRedis starts a server for an example, which has no testing.TB of its own.
func exampleRedis() (addr string, stop func()) {
	t := &exampleTB{}
	s := redistest.Start(t)
	return s.Addr, t.end
}

type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (t *exampleTB) Helper()                   {}
func (t *exampleTB) Cleanup(fn func())         { t.cleanups = append(t.cleanups, fn) }
func (t *exampleTB) Fatal(args ...any)         { panic(fmt.Sprint(args...)) }
func (t *exampleTB) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (t *exampleTB) Skipf(f string, a ...any)  { t.Fatalf(f, a...) }

func (t *exampleTB) TempDir() string {
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (t *exampleTB) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}
