package redisregistry_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat/redisregistry"
)

// What a load balancer asks a node: whether new clients should be sent to it. They
// should not while messages get nowhere, as here, where no Redis is.
func ExampleRegistry_Check() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{"127.0.0.1:1"}})
	defer client.Close()
	registry, err := redisregistry.New(client, redisregistry.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		panic(err)
	}
	defer registry.Shutdown(context.Background())

	ready := func(w http.ResponseWriter, r *http.Request) {
		if err := registry.Check(r.Context()); err != nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable) // err is for the log
		}
	}
	answer := httptest.NewRecorder()
	ready(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	fmt.Println(answer.Code)
	// Output: 503
}
