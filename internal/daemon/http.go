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

// Limits of a connection until it becomes a WebSocket.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute

	// maxHeader fits a handshake that names as many channels as a socket may join, with
	// the longest names and the id to resume each from. It also fits a token that is too
	// long, so that the answer is 401 rather than 431. A stranger's header takes up to ten
	// times its size in memory. net/http adds 4 KiB to the limit.
	maxHeader = 40 << 10
)

// newHTTPServer returns a server whose connections are bounded in time and header size.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // WebSockets need it; see tlsConfig
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

// withHealth adds two routes to those of the service:
//
//	GET /healthz  200 while the process answers requests
//	GET /readyz   200, or 503 when the server should get no new clients
//
// The answer of /readyz names the part that fails. The cause is not for strangers, so it
// is only logged.
func withHealth(service http.Handler, ready func(*http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case read && r.URL.Path == "/healthz":
			answerOK(w)
		case read && r.URL.Path == "/readyz":
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

// strictTransport tells browsers to use HTTPS only, for maxAge (RFC 6797). A maxAge of 0
// makes them forget it. A browser applies it to all ports of a host, so answers on a
// port other than 443 carry it only with anyPort. Answers to addresses, and to names
// that exist on one machine or network only, never do.
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

// isPublicName reports whether host can be a name in the public DNS.
func isPublicName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return false
	}
	return !slices.ContainsFunc([]string{".localhost", ".local", ".internal", ".home.arpa", ".test"},
		func(local string) bool { return strings.HasSuffix("."+host, local) })
}

// hostname returns a Host header without its port.
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

// accessLog logs each answered request at debug level. It logs a WebSocket when it opens.
// It never logs bodies or headers.
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
		if status == 0 { // the handler wrote nothing: net/http sends 200, unless the connection was hijacked
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

// recorder remembers the status of an answer. [http.ResponseController] reaches the other
// abilities of the ResponseWriter through Unwrap.
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

// redact returns a query with only those values shown that are known to be no secret.
// Clients put tokens under many other names.
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
			!strings.Contains(pair, ";"): // some parsers split at it
		default:
			pairs[i] = hidden
		}
	}
	return strings.Join(pairs, "&")
}

// oneAtATime serves one request at a time. Collecting figures takes CPU of the whole
// process, so parallel requests must not multiply it. Answers are buffered: a peer that
// does not read delays nobody.
func oneAtATime(h http.Handler) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case turn <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		a := bufferedResponse{ResponseWriter: w}
		func() {
			defer func() { <-turn }() // deferred: h may panic
			h.ServeHTTP(&a, r)
		}()
		w.WriteHeader(cmp.Or(a.status, http.StatusOK))
		_, _ = w.Write(a.body.Bytes()) // it fails when the peer is gone
	})
}

// bufferedResponse keeps status and body in memory.
type bufferedResponse struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (a *bufferedResponse) WriteHeader(status int)      { a.status = cmp.Or(a.status, status) }
func (a *bufferedResponse) Write(p []byte) (int, error) { return a.body.Write(p) }

// debugVars serves the variables of package expvar, as [expvar.Handler] does, and three
// more: "chat" with the service's counters, "refused_connections" with the connections
// that were refused or cut because there were too many, and "cmdline" from args.
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
			if kv.Key != "cmdline" { // expvar's own contains passwords
				fmt.Fprintf(w, ",\n%q: %s", kv.Key, kv.Value)
			}
		})
		fmt.Fprint(w, "\n}\n")
	})
}
