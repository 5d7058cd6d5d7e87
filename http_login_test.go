package chat_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/pipenet"
)

// byTestAddr takes a client's address from a header of the tests.
var byTestAddr = chat.WithClientAddr(func(r *http.Request) string { return r.Header.Get("X-Test-Addr") })

// tryLogin logs in from an address and returns the answer.
func (s *server) tryLogin(user, password, addr string) *http.Response {
	s.t.Helper()
	resp, body := s.request("POST", "/login", "", `{"username":"`+user+`","password":"`+password+`"}`, "X-Test-Addr", addr)
	if resp.StatusCode >= 400 {
		wantProblem(s.t, resp, body, resp.StatusCode)
	}
	return resp
}

// instantLogin knows everybody, with the name and "-pw" as the password. It takes no
// time, for tests that count tries.
type instantLogin struct{ *chat.HS256 }

func (l instantLogin) Login(_ context.Context, name, password string) (chat.Token, error) {
	if password != name+"-pw" {
		return chat.Token{}, chat.ErrUnauthenticated
	}
	return l.Issue(chat.User{Name: name})
}

func serveInstantLogin(t *testing.T, l *pipenet.Listener) *server {
	t.Helper()
	signer, err := chat.NewHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	return serveAuth(t, l, l.Dial, signer, instantLogin{signer}, byTestAddr)
}

func TestAFloodOfLoginsKeepsNobodyElseOut(t *testing.T) {
	tests := map[string]func(worker, i int) (user, password, addr string){
		"wrong, from 128 networks of one /56": func(worker, i int) (string, string, string) {
			return fmt.Sprint("user", worker, i), "wrong", fmt.Sprintf("2001:db8:0:%02x::1", worker)
		},
		"wrong, of one user from 128 networks of one /56": func(worker, i int) (string, string, string) {
			return "eva", "wrong", fmt.Sprintf("2001:db8:0:%02x::1", worker)
		},
		"right, of one user from four addresses": func(worker, i int) (string, string, string) {
			return "ana", "ana-pw", fmt.Sprintf("198.51.%d.1", worker%4)
		},
		"wrong, from 128 addresses of one /24": func(worker, i int) (string, string, string) {
			return fmt.Sprint("user", worker, i), "wrong", fmt.Sprintf("198.51.100.%d", worker)
		},
	}
	for name, flood := range tests {
		t.Run(name, func(t *testing.T) {
			s := serveLogin(t, byTestAddr)
			over := make(chan struct{})
			var workers sync.WaitGroup
			for worker := range 128 { // far more than may wait on a few cores
				workers.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-over:
							return
						default:
						}
						if resp := s.tryLogin(flood(worker, i)); resp.StatusCode >= 429 {
							<-time.After(100 * time.Millisecond) // leaves the machine to the others
						}
					}
				})
			}
			eventually(t, "the flood to be under way", func() bool {
				st := s.Stats()
				return st.PortErrors["authenticator"].Others > 0 || st.RefusedLogins+st.Logins > 100
			})
			for i := range 5 {
				if resp := s.tryLogin("admin", "admin-pw", fmt.Sprintf("203.0.%d.1", i)); resp.StatusCode != 200 {
					t.Errorf("login %d of another user from elsewhere: %d, want 200", i, resp.StatusCode)
				}
			}
			close(over)
			workers.Wait()
		})
	}
}

func TestWiderNetworksAreCountedToo(t *testing.T) {
	tests := map[string]struct {
		addr func(i int) string // a narrow network for each i
		want int                // first tries of users until the wide one is refused
		next string             // an address beside it
	}{
		"IPv6 /56":     {func(i int) string { return fmt.Sprintf("2001:db8:0:1%02x::1", i%256) }, 320, "2001:db8:0:200::1"},
		"IPv6 /48":     {func(i int) string { return fmt.Sprintf("2001:db8:1:%x00::1", i%256) }, 1280, "2001:db8:2::1"},
		"IPv4 /24":     {func(i int) string { return fmt.Sprintf("192.0.2.%d", i%256) }, 640, "192.0.3.1"},
		"IPv4 in IPv6": {func(i int) string { return fmt.Sprintf("::ffff:192.0.2.%d", i%256) }, 640, "192.0.3.1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := pipenet.Listen()
				s := serveInstantLogin(t, l)
				for i := range tt.want {
					if resp := s.tryLogin(fmt.Sprint("user", i), "wrong", tt.addr(i)); resp.StatusCode != 401 {
						t.Fatalf("try %d: %d, want 401", i, resp.StatusCode)
					}
				}
				resp := s.tryLogin("ana", "ana-pw", tt.addr(tt.want))
				if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
					t.Errorf("one more: %d, want 429 with Retry-After", resp.StatusCode)
				}
				if resp := s.tryLogin("ana", "ana-pw", tt.next); resp.StatusCode != 200 {
					t.Errorf("from the next network: %d, want 200", resp.StatusCode)
				}
			})
		})
	}
}

func TestLoginsThatSucceedHaveAnEndToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipenet.Listen()
		s := serveInstantLogin(t, l)
		for i := range 100 {
			if resp := s.tryLogin("ana", "ana-pw", "192.0.2.1"); resp.StatusCode != 200 {
				t.Fatalf("login %d: %d, want 200", i, resp.StatusCode)
			}
		}
		resp := s.tryLogin("ana", "ana-pw", "192.0.2.1")
		if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "2" {
			t.Errorf("login 101: %d, Retry-After %q, want 429 and 2", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		if resp := s.tryLogin("admin", "admin-pw", "192.0.2.1"); resp.StatusCode != 200 {
			t.Errorf("another user from there: %d, want 200", resp.StatusCode)
		}
		for i := range 100 {
			if resp := s.tryLogin("ana", "ana-pw", fmt.Sprintf("10.0.%d.1", i)); resp.StatusCode != 200 {
				t.Fatalf("from elsewhere, login %d: %d, want 200", i, resp.StatusCode)
			}
		}
		if resp := s.tryLogin("ana", "ana-pw", "10.1.0.1"); resp.StatusCode != 429 {
			t.Errorf("from everywhere, login 201: %d, want 429", resp.StatusCode)
		}
		<-time.After(2 * time.Second)
		if resp := s.tryLogin("ana", "ana-pw", "192.0.2.1"); resp.StatusCode != 200 {
			t.Errorf("after Retry-After: %d, want 200", resp.StatusCode)
		}
	})
}

// What a page of any origin can have a browser send without being asked locks nobody
// out: it is refused before it is counted.
func TestAPageLocksNobodyOut(t *testing.T) {
	const json, form = "application/json", "application/x-www-form-urlencoded"
	wrong := `{"username":"ana","password":"wrong"}`
	tests := map[string]struct {
		body   string
		header []string
		want   int
	}{
		"plain text":                      {wrong, []string{"Content-Type", "text/plain"}, 415},
		"plain text of another page":      {wrong, []string{"Content-Type", "text/plain", "Origin", "https://evil.example"}, 403},
		"a form of another page":          {"username=ana&password=wrong", []string{"Content-Type", form, "Origin", "https://evil.example"}, 403},
		"a form of a page without rights": {"username=ana&password=wrong", []string{"Content-Type", form, "Origin", "null"}, 403},
		"a form, without an Origin":       {"username=ana&password=wrong", []string{"Content-Type", form, "Sec-Fetch-Site", "cross-site"}, 403},
		"JSON of another page":            {wrong, []string{"Content-Type", json, "Origin", "https://evil.example"}, 403},
		"no type":                         {wrong, []string{"Content-Type", ""}, 415},
		"a type that cannot be read":      {wrong, []string{"Content-Type", "application/json; charset"}, 415},
		"several parts":                   {wrong, []string{"Content-Type", "multipart/form-data; boundary=x"}, 415},
		"another JSON type":               {wrong, []string{"Content-Type", "application/problem+json"}, 415},
		"a query that cannot be read":     {wrong, []string{"X-Query", "a;b"}, 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serveLogin(t)
			path := "/login"
			if len(tt.header) > 1 && tt.header[0] == "X-Query" {
				path += "?" + tt.header[1]
			}
			for range 15 {
				resp, body := s.request("POST", path, "", tt.body, tt.header...)
				wantProblem(t, resp, body, tt.want)
			}
			if resp := s.tryLogin("ana", "ana-pw", ""); resp.StatusCode != 200 {
				t.Errorf("her login after that: %d, want 200", resp.StatusCode)
			}
		})
	}
	t.Run("capitals and a charset", func(t *testing.T) {
		s := serveLogin(t)
		if resp, body := s.request("POST", "/login", "", strings.Replace(wrong, "wrong", "ana-pw", 1), "Content-Type", "Application/JSON;charset=UTF-8"); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	})
}

// An entry of htpasswd is of the first 72 bytes of a longer password, and looks like any
// other. Who logs in with the longer one is told why that does not work.
func TestAPasswordOver72BytesIsToldSo(t *testing.T) {
	long := strings.Repeat("x", 80)
	hash, err := bcrypt.GenerateFromPassword([]byte(long[:72]), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	s := serveLoginOf(t, "long:"+string(hash)+"\n", byTestAddr)
	const want = "a password has 1 to 72 bytes, none of them NUL: this one has 80 bytes"
	var answers []string
	for _, user := range []string{"long", "ana", "nobody"} {
		resp, body := s.request("POST", "/login", "", `{"username":"`+user+`","password":"`+long+`"}`)
		wantProblem(t, resp, body, 401)
		if !strings.Contains(body, want) || strings.Contains(body, long) {
			t.Errorf("%s: %s, want %q in it", user, body, want)
		}
		answers = append(answers, body)
	}
	if answers[0] != answers[1] || answers[1] != answers[2] {
		t.Errorf("the answers tell who has an account: %q", answers)
	}
	if resp := s.tryLogin("long", long[:72], ""); resp.StatusCode != 200 {
		t.Errorf("with 72 bytes: %d, want 200", resp.StatusCode)
	}
	if _, err := chat.HashPassword(long); !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("hashing it: %v, want %q", err, want)
	}
}
