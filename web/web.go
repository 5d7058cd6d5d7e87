// Package web serves a web client for the chat service, and chat.js, the JavaScript
// client that the web client uses and that other pages can import.
//
// The web client uses relative addresses, so it finds the service below any prefix.
//
//	mux.Handle("/chat/", http.StripPrefix("/chat", web.Handler(service)))
//
// The headers allow scripts, styles and connections of the same origin only. They
// forbid frames around the web client and HTML made from text (Trusted Types).
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

// contentTypes maps the extension of a file's name to its content type.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8", // RFC 9239
	".svg":  "image/svg+xml",
	".ts":   "text/plain; charset=utf-8",
}

// file is an embedded file with its headers.
type file struct {
	body        []byte
	contentType string
	etag        string
	shared      bool // pages of other origins may import it
}

// files are all embedded files by path; index.html is at "/".
var files = read()

func read() map[string]*file {
	entries, err := embedded.ReadDir(".")
	if err != nil {
		panic(err) // cannot happen: the directory is embedded
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

// Handler serves the web client at "/", with its files, and chat.js with its types,
// chat.d.ts. next serves all other paths; if next is nil, they are not found.
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

// Client serves chat.js at any address where it is mounted.
func Client() http.Handler { return files["/chat.js"] }

// ServeHTTP answers GET and HEAD. A browser revalidates its copy each time, which costs
// few bytes if the file has not changed.
//
// Pages of any origin may import a shared file: it is the same for every client and
// contains no secret. The service decides whether to accept their sockets and requests.
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
		// Files are small and always sent whole: the answer to a Range with a thousand
		// parts would be far larger than the file.
		http.ServeContent(w, conditional(r), "", time.Time{}, bytes.NewReader(f.body))
	case http.MethodOptions:
		h.Set("Allow", allow)
		w.WriteHeader(http.StatusNoContent)
	default:
		h.Set("Allow", allow)
		problem.Write(w, http.StatusMethodNotAllowed, r.Method+" is not for this address")
	}
}

// conditional returns a request with only those headers of r that choose between the
// file and "not modified" (RFC 9110, section 13.1).
func conditional(r *http.Request) *http.Request {
	return &http.Request{Method: r.Method, Header: http.Header{
		"If-Match":      r.Header["If-Match"],
		"If-None-Match": r.Header["If-None-Match"],
	}}
}
