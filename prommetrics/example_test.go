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

// Two services of one process, told apart by a label.
func ExampleWithConstLabels() {
	signer, err := chat.NewHS256([]byte("a secret of 32 bytes at the least"))
	if err != nil {
		panic(err)
	}
	registry := prometheus.NewRegistry()
	for _, name := range []string{"customers", "staff"} {
		service, err := chat.New(signer)
		if err != nil {
			panic(err)
		}
		defer service.Shutdown(context.Background())
		collector, err := prommetrics.New(service, prommetrics.WithConstLabels(prometheus.Labels{"chat": name}))
		if err != nil {
			panic(err)
		}
		registry.MustRegister(collector)
	}
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, family := range families {
		if family.GetName() == "chat_sockets" {
			for _, m := range family.GetMetric() {
				fmt.Println(m.GetLabel()[0].GetValue(), m.GetGauge().GetValue())
			}
		}
	}
	// Output:
	// customers 0
	// staff 0
}
