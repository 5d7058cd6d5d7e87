package chat_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/reto10/chat"
)

func TestQueriesThatCannotBeReadAreRefused(t *testing.T) {
	s := serveLogin(t)
	routes := map[string]struct {
		method, path, body string
		header             []string
	}{
		"socket":     {"GET", "/ws/chat", "", upgradeHeaders},
		"connected":  {"GET", "/users/connected", "", nil},
		"history":    {"GET", "/messages", "", nil},
		"publish":    {"POST", "/messages", `{"content":"x"}`, nil},
		"disconnect": {"POST", "/users/ana/disconnect", "", nil},
		"login":      {"POST", "/login", `{"username":"ana","password":"ana-pw"}`, nil},
	}
	queries := map[string]string{
		"a semicolon":             "channel=ops;x",
		"a semicolon of its own":  "channel=ops&;",
		"a percent sign":          "channel=%zz",
		"half an escape":          "channel=ops&x=%2",
		"two tokens":              "token=a&token=a",
		"a semicolon in a token":  "token=secret;x",
		"an escape in a token":    "token=secret%zz",
		"a percent sign in names": "%=1",
	}
	for route, r := range routes {
		for what, query := range queries {
			t.Run(route+"/"+what, func(t *testing.T) {
				resp, body := s.request(r.method, r.path+"?"+query, s.token("admin"), r.body, r.header...)
				wantProblem(t, resp, body, 400)
				if strings.Contains(body, "secret") {
					t.Errorf("the token in %s", body)
				}
			})
		}
		t.Run(route+"/an unknown parameter", func(t *testing.T) {
			const query = "?utm=1&utm=2&x"
			if route == "socket" { // whose answer has no end
				if resp, body := s.requestRaw(t, r.path+query, s.token("admin"), nil); resp.StatusCode != 101 {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
				return
			}
			if resp, body := s.request(r.method, r.path+query, s.token("admin"), r.body); resp.StatusCode >= 400 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
	if got := s.Stats().RefusedBy["invalid"]; got != uint64(len(queries)) {
		t.Errorf("%d handshakes counted as invalid, want %d", got, len(queries))
	}
}

func TestAParameterThatCountsOnceComesOnce(t *testing.T) {
	s := serve(t)
	for path, want := range map[string]int{
		"/messages?channel=ops&channel=news":        400,
		"/messages?channel=ops&channel=ops":         400,
		"/messages?channel=&channel=ops":            400,
		"/messages?limit=1&limit=2":                 400,
		"/messages?before=&before=":                 400,
		"/messages?after=1-e&after=2-e":             400,
		"/users/connected?channel=ops&channel=news": 400,
		"/messages?channel=ops&limit=1&before=":     200,
		"/users/connected?channel=ops":              200,
	} {
		resp, body := s.request("GET", path, s.token("admin"), "")
		if resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
	// A socket's channels and ids are many.
	c := s.dial("ana", "channel", "ops", "channel", "news", "channel", "ops")
	s.publish("news", "x")
	c.wantText("x")
}

// Whatever a query says, it is answered as a whole or not at all: a history that comes
// back is that of the channel which the query names to every reader.
func FuzzQuery(f *testing.F) {
	signer, err := chat.NewHS256(secret)
	if err != nil {
		f.Fatal(err)
	}
	history := chat.NewMemoryHistory(chat.MemoryLimits{})
	service := newService(f, chat.WithHistory(history), chat.WithConnectRate(0, 0))
	for _, channel := range []string{"", "ops", "@ana"} {
		if _, err := service.Broadcast(f.Context(), chat.Message{Channel: channel, Content: "in " + channel}); err != nil {
			f.Fatal(err)
		}
	}
	issued, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleAdmin})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"", "channel=ops", "channel=ops;x", "channel=ops&limit=1&limit=2", "before=&limit=5000", "after=1-e-ops",
		"channel=%40ana", "channel=%6fps", "channel=ops&channel=news&since=1-e&since=x", "token=x", "channel=@bob", "%", "&&=&",
		"channel=" + strings.Repeat("a", 200), "since=" + strings.Repeat("9", 40) + "-e", "limit=-1", "limit=0x10", "channel=a+b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		ask := func(path string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", path, nil)
			r.URL.RawQuery = raw
			r.Header.Set("Authorization", "Bearer "+issued.AccessToken)
			w := httptest.NewRecorder() // has no connection to take over
			if path == "/ws/chat" {
				for i := 0; i < len(upgradeHeaders); i += 2 {
					r.Header.Set(upgradeHeaders[i], upgradeHeaders[i+1])
				}
			}
			service.ServeHTTP(w, r)
			return w
		}
		query, err := url.ParseQuery(raw)
		twice := func(names ...string) bool {
			return slices.ContainsFunc(append(names, "token"), func(name string) bool { return len(query[name]) > 1 })
		}
		channel := query.Get("channel")

		w := ask("/messages")
		if (err != nil || twice("channel", "after", "before", "limit")) && w.Code != http.StatusBadRequest {
			t.Errorf("history: status %d", w.Code)
		}
		if w.Code == http.StatusOK && query.Get("after") == "" && query.Get("before") == "" {
			if want := fmt.Sprintf(`"content":"in %s"`, channel); slices.Contains([]string{"", "ops", "@ana"}, channel) && !strings.Contains(w.Body.String(), want) {
				t.Errorf("%q is answered with %s", raw, w.Body)
			}
		}
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest && w.Code != http.StatusForbidden {
			t.Errorf("history: status %d", w.Code)
		}
		w = ask("/users/connected")
		if (err != nil || twice("channel")) != (w.Code == http.StatusBadRequest) && (channel == "" || chat.ValidChannel(channel)) {
			t.Errorf("connected: status %d", w.Code)
		}
		// A handshake gets as far as to the connection, which is not there, and no further.
		w = ask("/ws/chat")
		switch bad := err != nil || twice(); {
		case bad && w.Code != http.StatusBadRequest,
			!bad && !slices.Contains([]int{http.StatusBadRequest, http.StatusForbidden, http.StatusServiceUnavailable}, w.Code):
			t.Errorf("socket: status %d", w.Code)
		}
	})
}
