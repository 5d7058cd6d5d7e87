package prommetrics_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/prommetrics"
)

func Example() {
	signer, err := chat.NewHS256([]byte("a secret of 32 bytes at the least"))
	if err != nil {
		panic(err)
	}
	service, err := chat.New(signer)
	if err != nil {
		panic(err)
	}
	defer service.Shutdown(context.Background())
	collector, err := prommetrics.New(service)
	if err != nil {
		panic(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)

	mux := http.NewServeMux()
	mux.Handle("/", service)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	if _, err := service.Broadcast(context.Background(), chat.Message{Content: "lunch is ready"}); err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "chat_published") {
			fmt.Print(line)
		}
	}
	// Output: chat_published_messages_total 1
}
