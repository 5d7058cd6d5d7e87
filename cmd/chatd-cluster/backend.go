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

// openWithin bounds what is asked of the backends at start. One that is not there
// then ends the program: whoever supervises it sees that, and tries again.
const openWithin = 10 * time.Second

// closeWithin bounds what a backend may still have to say at the end.
const closeWithin = 5 * time.Second

// inRedis is the -history that lives where the registry does. It is the registry's choice.
const inRedis = "redis"

// settings are what the program's own flags say.
type settings struct {
	prefix  string
	lease   time.Duration
	durable bool
}

// open opens what -registry and -history name.
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
			_ = b.Close() // what went wrong first is told
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

// settle fills in what was not said, and refuses what would not work: nodes agree
// on the order of messages by a history that they have in common.
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
		return where, daemon.UsageError("-registry %s: neither memory nor the URL of a Redis: %s://…",
			daemon.Kind(where.Registry), strings.Join(redisKinds, "://…, "))
	case kind == inRedis && where.History != inRedis:
		return where, daemon.UsageError("-history redis: that is all there is to say, it is where -registry is")
	case kind == inRedis && !shared:
		return where, daemon.UsageError("-history redis needs the URL of a Redis in -registry")
	case shared && (kind == daemon.InMemory || kind == daemon.Off || kind == sqliteKind):
		return where, daemon.UsageError("-history %s: nodes that meet in -registry %s need a history in common, redis or postgres",
			kind, daemon.Kind(where.Registry))
	case kind != daemon.InMemory && kind != daemon.Off && kind != inRedis && !slices.Contains(sqlKinds, kind):
		return where, daemon.UsageError("-history %s: not memory, off, redis, sqlite:FILE or postgres://…", kind)
	}
	return where, nil
}

// parseURL reads the URL of a backend. Nothing of one that it cannot read is in
// its error: where a password holds what it may not, any part may be of it.
func parseURL(flag, where string) (*url.URL, error) {
	u, err := url.Parse(where)
	if err != nil || u.Hostname() == "" && !u.Query().Has("host") || u.Fragment != "" || u.User == nil && strings.Contains(where, "@") {
		kind := daemon.Kind(where)
		return nil, daemon.UsageError("-%s %s: not a URL such as %s://user:password@host (what is no letter or digit of a password has to be written as %%2F, by its code)",
			flag, kind, kind)
	}
	return u, nil
}

// shown is what of a setting may be logged.
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

// metrics serves the service's figures and the process's to Prometheus.
func metrics(service *chat.Service, mux *http.ServeMux) {
	collector, err := prommetrics.New(service)
	if err != nil {
		panic(fmt.Sprintf("chatd-cluster: %v", err)) // there are no options to be wrong
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector())
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
}
