// Package web is the service in a browser: a page to chat on, and chat.js, the
// client that the page is built on and that other pages can import.
//
// The page's addresses are relative: below the prefix where a service is mounted
// it finds that service.
//
//	mux.Handle("/chat/", http.StripPrefix("/chat", web.Handler(service)))
//
// Nothing is loaded from elsewhere, and the headers allow nothing else: scripts,
// styles and connections of its own origin alone, no frames around it, and no
// text that becomes HTML (Trusted Types).
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/reto10/chat/internal/problem"
)

//go:embed *.html *.css *.js *.svg *.d.ts
var embedded embed.FS

const (
	policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"require-trusted-types-for 'script'; trusted-types 'none'"
	permissions = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), " +
		"magnetometer=(), microphone=(), midi=(), payment=(), publickey-credentials-get=(), serial=(), usb=(), xr-spatial-tracking=()"
	allow = "GET, HEAD, OPTIONS"
)

// contentTypes are by the end of a file's name.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8", // RFC 9239
	".svg":  "image/svg+xml",
	".ts":   "text/plain; charset=utf-8",
}

// file is one that is served.
type file struct {
	body        []byte
	contentType string
	etag        string
	shared      bool // with pages of other origins
}

// files are all that is embedded, by path; index.html is at "/".
var files = read()

func read() map[string]*file {
	entries, err := embedded.ReadDir(".")
	if err != nil {
		panic(err) // it is in the binary
	}
	found := make(map[string]*file, len(entries))
	for _, entry := range entries {
		name := entry.Name()
		body, err := embedded.ReadFile(name)
		contentType, known := contentTypes[path.Ext(name)]
		if err != nil || !known {
			panic("web: " + name + " cannot be served")
		}
		sum := sha256.Sum256(body)
		f := &file{
			body:        body,
			contentType: contentType,
			etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`,
			shared:      name == "chat.js" || name == "chat.d.ts",
		}
		found["/"+strings.TrimSuffix(name, "index.html")] = f
	}
	return found
}

// Handler serves the page at "/", what belongs to it, and chat.js with its types,
// chat.d.ts. All other paths are next's; with none they are not found.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		switch {
		case ok:
			f.ServeHTTP(w, r)
		case next != nil:
			next.ServeHTTP(w, r)
		default:
			problem.Write(w, http.StatusNotFound, "nothing is at this address")
		}
	})
}

// Client serves chat.js alone, at whatever address it is mounted.
func Client() http.Handler { return files["/chat.js"] }

// ServeHTTP answers GET and HEAD. A browser asks each time whether it still has
// the newest, and is told so in a few bytes.
//
// Pages of any origin may import what is shared: it is the same for everybody, and
// holds no secret. Whether their sockets and requests are let in is the service's
// to say.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", permissions)
	if f.shared {
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	} else {
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Type", f.contentType)
		h.Set("ETag", f.etag)
		// Files are small and always sent whole: a Range of a thousand parts would
		// make an answer far larger than the file.
		http.ServeContent(w, conditional(r), "", time.Time{}, bytes.NewReader(f.body))
	case http.MethodOptions:
		h.Set("Allow", allow)
		w.WriteHeader(http.StatusNoContent)
	default:
		h.Set("Allow", allow)
		problem.Write(w, http.StatusMethodNotAllowed, r.Method+" is not for this address")
	}
}

// conditional is a request with those headers of r that choose between the file and
// "not modified" (RFC 9110, section 13.1).
func conditional(r *http.Request) *http.Request {
	return &http.Request{Method: r.Method, Header: http.Header{
		"If-Match":      r.Header["If-Match"],
		"If-None-Match": r.Header["If-None-Match"],
	}}
}
