package web_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/web"
)

func ask(h http.Handler, method, path string, header http.Header) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestServesWhatIsInTheDirectory(t *testing.T) {
	for path, want := range map[string]struct{ name, contentType string }{
		"/":          {"index.html", "text/html; charset=utf-8"},
		"/page.js":   {"page.js", "text/javascript; charset=utf-8"},
		"/page.css":  {"page.css", "text/css; charset=utf-8"},
		"/chat.js":   {"chat.js", "text/javascript; charset=utf-8"},
		"/chat.d.ts": {"chat.d.ts", "text/plain; charset=utf-8"},
	} {
		content, err := os.ReadFile(want.name)
		if err != nil {
			t.Fatal(err)
		}
		resp := ask(web.Handler(nil), "GET", path, nil)
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != want.contentType {
			t.Errorf("GET %s: %d, %q", path, resp.StatusCode, got)
		}
		if diff := cmp.Diff(string(content), body(t, resp)); diff != "" {
			t.Errorf("GET %s (-file +answer):\n%s", path, diff)
		}
	}
}

func TestServesTheClientAlone(t *testing.T) {
	resp := ask(web.Client(), "GET", "/assets/chat-client.js", nil)
	if !strings.Contains(body(t, resp), "export class Chat ") {
		t.Error("the answer is not chat.js")
	}
}

func TestAllOtherPathsAreForTheNext(t *testing.T) {
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, path := range []string{"/messages", "/index.html", "/web.go", "/README.md", "/chat.js/", "//chat.js", "/x/chat.js", "/CHAT.JS"} {
		if got := ask(web.Handler(next), "GET", path, nil).StatusCode; got != http.StatusTeapot {
			t.Errorf("GET %s: %d", path, got)
		}
		resp := ask(web.Handler(nil), "GET", path, nil)
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusNotFound || got != "application/problem+json" {
			t.Errorf("GET %s without a next: %d, %q", path, resp.StatusCode, got)
		}
	}
}

func TestMethods(t *testing.T) {
	for method, want := range map[string]int{
		"GET": 200, "HEAD": 200, "OPTIONS": 204, "POST": 405, "PUT": 405, "DELETE": 405, "TRACE": 405,
	} {
		resp := ask(web.Handler(nil), method, "/chat.js", nil)
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", method, resp.StatusCode, want)
		}
		if allow := resp.Header.Get("Allow"); want != 200 && allow != "GET, HEAD, OPTIONS" {
			t.Errorf("%s: Allow is %q", method, allow)
		}
		if got := body(t, resp); want == 405 && !strings.Contains(got, `"status":405`) || method == "HEAD" && got != "" {
			t.Errorf("%s: %q", method, got)
		}
	}
}

// A browser that has the current file gets 304.
func TestIsSentAgainOnlyIfItChanged(t *testing.T) {
	for _, path := range []string{"/", "/chat.js"} {
		first := ask(web.Handler(nil), "GET", path, nil)
		etag := first.Header.Get("ETag")
		if got := first.Header.Get("Cache-Control"); etag == "" || got != "no-cache" {
			t.Errorf("%s: ETag %q, Cache-Control %q", path, etag, got)
		}
		for given, want := range map[string]int{etag: 304, `"another", ` + etag: 304, "W/" + etag: 304, "*": 304, `"another"`: 200} {
			resp := ask(web.Handler(nil), "GET", path, http.Header{"If-None-Match": {given}})
			if resp.StatusCode != want || resp.Header.Get("ETag") != etag {
				t.Errorf("%s, If-None-Match %s: %d, want %d; ETag %q", path, given, resp.StatusCode, want, resp.Header.Get("ETag"))
			}
		}
	}
	if ask(web.Handler(nil), "GET", "/", nil).Header.Get("ETag") == ask(web.Handler(nil), "GET", "/chat.js", nil).Header.Get("ETag") {
		t.Error("two files have one ETag")
	}
}

// All answers have these headers, also those to methods that are not allowed.
func TestHeadersAllowNothingFromElsewhere(t *testing.T) {
	always := map[string]string{
		"X-Content-Type-Options":     "nosniff",
		"Referrer-Policy":            "no-referrer",
		"Cross-Origin-Opener-Policy": "same-origin",
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	}
	// Any page may import the JavaScript client. No other page may use the web client's files.
	of := map[string]map[string]string{
		"/":          {"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": ""},
		"/page.js":   {"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": ""},
		"/chat.js":   {"Cross-Origin-Resource-Policy": "cross-origin", "Access-Control-Allow-Origin": "*"},
		"/chat.d.ts": {"Cross-Origin-Resource-Policy": "cross-origin", "Access-Control-Allow-Origin": "*"},
	}
	for path, own := range of {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST"} {
			h := ask(web.Handler(nil), method, path, nil).Header
			for _, headers := range []map[string]string{always, own} {
				for name, want := range headers {
					if got := h.Get(name); got != want {
						t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, want)
					}
				}
			}
			if !strings.Contains(h.Get("Permissions-Policy"), "microphone=()") {
				t.Errorf("%s %s: Permissions-Policy is %q", method, path, h.Get("Permissions-Policy"))
			}
		}
	}
}

// A file is sent whole or not at all, even if a client asks for parts of it: a thousand
// parts would cost a thousand headers, and a buffer for each.
func TestRangesAreIgnored(t *testing.T) {
	want, err := os.ReadFile("page.js")
	if err != nil {
		t.Fatal(err)
	}
	etag := ask(web.Handler(nil), "GET", "/page.js", nil).Header.Get("ETag")
	for name, test := range map[string]struct {
		header http.Header
		status int
	}{
		"one":           {http.Header{"Range": {"bytes=0-9"}}, http.StatusOK},
		"many":          {http.Header{"Range": {"bytes=" + strings.Repeat("0-0,", 1000) + "0-0"}}, http.StatusOK},
		"beyond":        {http.Header{"Range": {"bytes=999999999-"}}, http.StatusOK},
		"nonsense":      {http.Header{"Range": {"bytes=x"}}, http.StatusOK},
		"if it is this": {http.Header{"Range": {"bytes=0-9"}, "If-Range": {etag}}, http.StatusOK},
		"not modified":  {http.Header{"Range": {"bytes=0-9"}, "If-None-Match": {etag}}, http.StatusNotModified},
		"among many": {http.Header{"If-None-Match": {strings.Repeat(`"no", `, 1000) + etag}},
			http.StatusNotModified},
		"another wanted": {http.Header{"If-Match": {`"another"`}}, http.StatusPreconditionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD"} {
				resp := ask(web.Handler(nil), method, "/page.js", test.header)
				got := body(t, resp)
				if resp.StatusCode != test.status {
					t.Errorf("%s: status %d, want %d", method, resp.StatusCode, test.status)
				}
				if whole := method == "GET" && test.status == http.StatusOK; whole != (got == string(want)) || !whole && got != "" {
					t.Errorf("%s: %d bytes of %d", method, len(got), len(want))
				}
				if resp.Header.Get("Content-Range") != "" || resp.Header.Get("Content-Type") == "multipart/byteranges" {
					t.Errorf("%s: headers %v", method, resp.Header)
				}
			}
		})
	}
}
