package daemon

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reto10/chat/internal/problem"
)

// What a connection that is not yet a WebSocket may take. The bounds end with the
// upgrade, which takes the connection over.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute

	// maxHeader leaves room for as many channels as a socket may join, by the longest
	// names, each with the id to resume from, and for a token longer than one may be,
	// which is to be a 401 and not a 431. What strangers send before they say
	// who they are takes up to ten times its size in memory; net/http adds 4 KiB.
	maxHeader = 40 << 10
)

// hardened is an HTTP server that strangers cannot hold up.
func hardened(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // the upgrade's; see tlsConfig
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          serverLog(log),
	}
}

// routes adds health to what the service serves:
//
//	GET /healthz  200 as long as there is somebody to answer
//	GET /readyz   200, or 503 when no new clients should come
//
// Which part is to blame is in the answer; what is wrong with it is not for
// strangers to know.
func routes(service http.Handler, ready func(*http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case asked && r.URL.Path == "/healthz":
			answerOK(w)
		case asked && r.URL.Path == "/readyz":
			if err := ready(r); err != nil {
				detail := "not ready"
				if why, ok := errors.AsType[notReady](err); ok {
					detail += ": " + why.reason
				}
				problem.Write(w, http.StatusServiceUnavailable, detail)
				return
			}
			answerOK(w)
		default:
			service.ServeHTTP(w, r)
		}
	})
}

// strictTransport has browsers come back by https only, for a time (RFC 6797), or, when
// that is 0, forget that they were asked to. A browser applies it to all ports of the
// host. So answers on a port other than 443 have it only with anyPort.
// Addresses and names that mean something on one machine or network only are left out.
func strictTransport(next http.Handler, maxAge time.Duration, anyPort bool) http.Handler {
	value := "max-age=" + strconv.FormatInt(int64(maxAge/time.Second), 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		port := ""
		if _, p, err := net.SplitHostPort(r.Host); err == nil {
			port = p
		}
		if (anyPort || port == "" || port == "443") && isPublicName(hostname(r.Host)) {
			w.Header().Set("Strict-Transport-Security", value)
		}
		next.ServeHTTP(w, r)
	})
}

// isPublicName reports whether host may be a name in the public DNS.
func isPublicName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return false
	}
	return !slices.ContainsFunc([]string{".localhost", ".local", ".internal", ".home.arpa", ".test"},
		func(local string) bool { return strings.HasSuffix("."+host, local) })
}

// hostname is a Host header without its port.
func hostname(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return strings.Trim(hostPort, "[]")
}

func answerOK(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, "ok\n")
}

// accessLog logs each request at debug level once it is answered; that of a
// WebSocket is answered when the socket opens. Bodies and headers are never
// logged.
func accessLog(next http.Handler, log *slog.Logger, client func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !log.Enabled(r.Context(), slog.LevelDebug) {
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		method, path, query, from := r.Method, r.URL.Path, redact(r.URL.RawQuery), client(r)
		rec := &recorder{ResponseWriter: w}
		next.ServeHTTP(rec, r)
		status := rec.status
		if status == 0 { // nothing written: net/http's 200, unless it was taken over
			status = http.StatusOK
			if r.Header.Get("Upgrade") != "" {
				status = http.StatusSwitchingProtocols
			}
		}
		attrs := []slog.Attr{
			slog.String("method", method),
			slog.String("path", path),
			slog.Int("status", status),
			slog.Duration("took", time.Since(start).Round(time.Microsecond)),
			slog.String("client", from),
		}
		if query != "" {
			attrs = slices.Insert(attrs, 2, slog.String("query", query))
		}
		log.LogAttrs(r.Context(), slog.LevelDebug, "request", attrs...)
	})
}

// recorder notes the status that was answered. All else a ResponseWriter may be
// able to is reached through Unwrap, by [http.ResponseController].
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = cmp.Or(r.status, status)
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.status = cmp.Or(r.status, http.StatusOK)
	return r.ResponseWriter.Write(p)
}

// redact shows the parameters of the protocol that are no secret. The values of
// all others are not shown: a token is put under many a name.
func redact(query string) string {
	const hidden = "REDACTED"
	if query == "" {
		return ""
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		key, _, hasValue := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		switch {
		case err == nil && name == "token" && hasValue:
			pairs[i] = "token=" + hidden
		case err == nil && slices.Contains([]string{"channel", "since", "after", "before", "limit"}, name) &&
			!strings.Contains(pair, ";"): // some read one pair more there
		default:
			pairs[i] = hidden
		}
	}
	return strings.Join(pairs, "&")
}

// oneAtATime has requests wait for each other: figures are gathered from the whole
// process, and asking for them in parallel must not take it over. Answers are sent
// from memory, so that nobody waits for a peer that does not read.
func oneAtATime(h http.Handler) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case turn <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		a := answer{ResponseWriter: w}
		func() {
			defer func() { <-turn }() // also after a panic
			h.ServeHTTP(&a, r)
		}()
		w.WriteHeader(cmp.Or(a.status, http.StatusOK))
		_, _ = w.Write(a.body.Bytes()) // an error is the peer's end
	})
}

// answer is one that is kept in memory, but for its headers.
type answer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (a *answer) WriteHeader(status int)      { a.status = cmp.Or(a.status, status) }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// debugVars answers as [expvar.Handler] does, with the service's counters as
// "chat" among the variables, with the connections that were refused or cut for
// being too many, and with the command line that it is given.
func debugVars(stats func() any, refused func() uint64, args []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		chat, err := json.Marshal(stats())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		cmdline, err := json.Marshal(append([]string{os.Args[0]}, args...))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "{\n%q: %s,\n%q: %d,\n%q: %s", "chat", chat, "refused_connections", refused(), "cmdline", cmdline)
		expvar.Do(func(kv expvar.KeyValue) {
			if kv.Key != "cmdline" { // that would have the passwords
				fmt.Fprintf(w, ",\n%q: %s", kv.Key, kv.Value)
			}
		})
		fmt.Fprint(w, "\n}\n")
	})
}
