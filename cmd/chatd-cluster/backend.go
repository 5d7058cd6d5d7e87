package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/prommetrics"
)

// openWithin bounds all requests to the backends at start. If a backend does not answer,
// the program ends, so that its supervisor sees it and restarts it.
const openWithin = 10 * time.Second

// closeWithin bounds the closing of a backend.
const closeWithin = 5 * time.Second

// inRedis is the -history in the registry's Redis. The registry provides it.
const inRedis = "redis"

// settings are the values of the flags that chatd does not have.
type settings struct {
	prefix  string
	lease   time.Duration
	durable bool
}

// open opens the backends that -registry and -history name.
func (s *settings) open(ctx context.Context, where daemon.Storage, log *slog.Logger) (_ daemon.Backend, err error) {
	where, err = settle(where)
	if err != nil {
		return daemon.Backend{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	b := daemon.Backend{Debug: metrics}
	var closers []func() error // in the order of their opening
	b.Close = func() (err error) {
		for _, closeIt := range slices.Backward(closers) {
			err = errors.Join(err, closeIt())
		}
		return err
	}
	defer func() {
		if err != nil {
			_ = b.Close() // the first error is returned
		}
	}()

	history, err := openSQL(ctx, where, log)
	if err != nil {
		return daemon.Backend{}, err
	}
	if history != nil {
		closers = append(closers, history.Close)
		b.Options = append(b.Options, chat.WithHistory(history))
		b.Checks = append(b.Checks, daemon.Check{Part: "history", Ask: history.Check})
		if file, ok := strings.CutPrefix(where.History, sqliteKind+":"); ok {
			b.Warnings = daemon.File{What: "the history", Path: file, Secret: true}.Warnings()
		}
	}
	if where.Registry != daemon.InMemory {
		registry, closeRegistry, err := s.openRedis(ctx, where, log)
		if err != nil {
			return daemon.Backend{}, err
		}
		closers = append(closers, closeRegistry)
		b.Options = append(b.Options, chat.WithRegistry(registry))
		b.Checks = append(b.Checks, daemon.Check{Part: "registry", Ask: registry.Check})
	}
	if where.Registry != daemon.InMemory || history != nil {
		log.Info("storage", "registry", shown(where.Registry), "history", shown(where.History))
	}
	return b, nil
}

// settle sets defaults and rejects invalid combinations: nodes need a common history,
// because it decides the order of messages.
func settle(where daemon.Storage) (daemon.Storage, error) {
	shared := where.Registry != daemon.InMemory
	if where.History == "" {
		where.History = daemon.InMemory
		if shared {
			where.History = inRedis
		}
	}
	kind := daemon.Kind(where.History)
	switch {
	case shared && !slices.Contains(redisKinds, daemon.Kind(where.Registry)):
		return where, daemon.UsageError("-registry %s: must be memory or the URL of a Redis: %s://…",
			daemon.Kind(where.Registry), strings.Join(redisKinds, "://…, "))
	case kind == inRedis && where.History != inRedis:
		return where, daemon.UsageError("-history redis: must be the word redis only: the history is in the Redis of -registry")
	case kind == inRedis && !shared:
		return where, daemon.UsageError("-history redis needs the URL of a Redis in -registry")
	case shared && (kind == daemon.InMemory || kind == daemon.Off || kind == sqliteKind):
		return where, daemon.UsageError("-history %s: nodes that share -registry %s need a common history, redis or postgres",
			kind, daemon.Kind(where.Registry))
	case kind != daemon.InMemory && kind != daemon.Off && kind != inRedis && !slices.Contains(sqlKinds, kind):
		return where, daemon.UsageError("-history %s: must be memory, off, redis, sqlite:FILE or postgres://…", kind)
	}
	return where, nil
}

// parseURL parses the URL of a backend. Its error contains no part of an invalid URL: if
// the password has a character that URLs do not allow, any part may belong to it.
func parseURL(flag, where string) (*url.URL, error) {
	u, err := url.Parse(where)
	if err != nil || u.Hostname() == "" && !u.Query().Has("host") || u.Fragment != "" || u.User == nil && strings.Contains(where, "@") {
		kind := daemon.Kind(where)
		return nil, daemon.UsageError("-%s %s: not a URL such as %s://user:password@host (in the password, write each character that is not a letter or a digit as its code, such as %%2F)",
			flag, kind, kind)
	}
	return u, nil
}

// shown returns a setting without its password, for the log.
func shown(where string) string {
	u, err := url.Parse(where)
	switch {
	case daemon.Kind(where) == sqliteKind:
		return where
	case err != nil || u.Host == "":
		return daemon.Kind(where)
	}
	return u.Scheme + "://" + u.Host
}

// metrics serves the figures of the service and the process to Prometheus.
func metrics(service *chat.Service, mux *http.ServeMux) {
	collector, err := prommetrics.New(service)
	if err != nil {
		panic(fmt.Sprintf("chatd-cluster: %v", err)) // cannot fail without options
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector())
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
}
