package chat_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/pipenet"
	"github.com/reto10/chat/test/wstest"
)

// byTestAddr takes a client's address from a header of the tests.
var byTestAddr = chat.WithClientAddr(func(r *http.Request) string { return r.Header.Get("X-Test-Addr") })

// tryLogin logs in from an address and returns the answer.
func tryLogin(s *chatserver.Server, user, password, addr string) *http.Response {
	s.T.Helper()
	resp, body := s.Request("POST", "/login", "", `{"username":"`+user+`","password":"`+password+`"}`, "X-Test-Addr", addr)
	if resp.StatusCode >= 400 {
		chatserver.WantProblem(s.T, resp, body, resp.StatusCode)
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

func serveInstantLogin(t *testing.T, l *pipenet.Listener) *chatserver.Server {
	t.Helper()
	signer, err := chat.NewHS256(chatserver.Secret)
	if err != nil {
		t.Fatal(err)
	}
	return chatserver.ServeAuth(t, l, l.Dial, signer, instantLogin{signer}, byTestAddr)
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
						user, password, addr := flood(worker, i)
						if resp := tryLogin(s, user, password, addr); resp.StatusCode >= 429 {
							<-time.After(100 * time.Millisecond) // leaves the machine to the others
						}
					}
				})
			}
			wstest.Eventually(t, "the flood to be under way", func() bool {
				st := s.Stats()
				return st.PortErrors["authenticator"].Others > 0 || st.RefusedLogins+st.Logins > 100
			})
			for i := range 5 {
				if resp := tryLogin(s, "admin", "admin-pw", fmt.Sprintf("203.0.%d.1", i)); resp.StatusCode != 200 {
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
		next string             // an address of another wide network
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
					if resp := tryLogin(s, fmt.Sprint("user", i), "wrong", tt.addr(i)); resp.StatusCode != 401 {
						t.Fatalf("try %d: %d, want 401", i, resp.StatusCode)
					}
				}
				resp := tryLogin(s, "ana", "ana-pw", tt.addr(tt.want))
				if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
					t.Errorf("one more: %d, want 429 with Retry-After", resp.StatusCode)
				}
				if resp := tryLogin(s, "ana", "ana-pw", tt.next); resp.StatusCode != 200 {
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
			if resp := tryLogin(s, "ana", "ana-pw", "192.0.2.1"); resp.StatusCode != 200 {
				t.Fatalf("login %d: %d, want 200", i, resp.StatusCode)
			}
		}
		resp := tryLogin(s, "ana", "ana-pw", "192.0.2.1")
		if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "2" {
			t.Errorf("login 101: %d, Retry-After %q, want 429 and 2", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		if resp := tryLogin(s, "admin", "admin-pw", "192.0.2.1"); resp.StatusCode != 200 {
			t.Errorf("another user from there: %d, want 200", resp.StatusCode)
		}
		for i := range 100 {
			if resp := tryLogin(s, "ana", "ana-pw", fmt.Sprintf("10.0.%d.1", i)); resp.StatusCode != 200 {
				t.Fatalf("from elsewhere, login %d: %d, want 200", i, resp.StatusCode)
			}
		}
		if resp := tryLogin(s, "ana", "ana-pw", "10.1.0.1"); resp.StatusCode != 429 {
			t.Errorf("from everywhere, login 201: %d, want 429", resp.StatusCode)
		}
		<-time.After(2 * time.Second)
		if resp := tryLogin(s, "ana", "ana-pw", "192.0.2.1"); resp.StatusCode != 200 {
			t.Errorf("after Retry-After: %d, want 200", resp.StatusCode)
		}
	})
}

// A page of any origin can have a browser send such requests without a preflight. They
// are refused before they are counted, and so lock nobody out.
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
				resp, body := s.Request("POST", path, "", tt.body, tt.header...)
				chatserver.WantProblem(t, resp, body, tt.want)
			}
			if resp := tryLogin(s, "ana", "ana-pw", ""); resp.StatusCode != 200 {
				t.Errorf("her login after that: %d, want 200", resp.StatusCode)
			}
		})
	}
	t.Run("capitals and a charset", func(t *testing.T) {
		s := serveLogin(t)
		if resp, body := s.Request("POST", "/login", "", strings.Replace(wrong, "wrong", "ana-pw", 1), "Content-Type", "Application/JSON;charset=UTF-8"); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	})
}

// htpasswd hashes only the first 72 bytes of a longer password, and the entry does not
// show it. A login with the longer password says why it fails.
func TestLoginSaysThatAPasswordIsOver72Bytes(t *testing.T) {
	long := strings.Repeat("x", 80)
	hash, err := bcrypt.GenerateFromPassword([]byte(long[:72]), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	s := serveLoginOf(t, "long:"+string(hash)+"\n", byTestAddr)
	const want = "a password has 1 to 72 bytes, none of them NUL: this one has 80 bytes"
	var answers []string
	for _, user := range []string{"long", "ana", "nobody"} {
		resp, body := s.Request("POST", "/login", "", `{"username":"`+user+`","password":"`+long+`"}`)
		chatserver.WantProblem(t, resp, body, 401)
		if !strings.Contains(body, want) || strings.Contains(body, long) {
			t.Errorf("%s: %s, want %q in it", user, body, want)
		}
		answers = append(answers, body)
	}
	if answers[0] != answers[1] || answers[1] != answers[2] {
		t.Errorf("the answers tell who has an account: %q", answers)
	}
	if resp := tryLogin(s, "long", long[:72], ""); resp.StatusCode != 200 {
		t.Errorf("with 72 bytes: %d, want 200", resp.StatusCode)
	}
	if _, err := chat.HashPassword(long); !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("hashing it: %v, want %q", err, want)
	}
}

// attackLogins makes tries, 20 a second, until the function returned is called.
func attackLogins(t *testing.T, s *chatserver.Server, attack func(i int) (user, password, addr string)) (end func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
			}
			user, password, addr := attack(i)
			tryLogin(s, user, password, addr)
		}
	}()
	return func() { close(over); <-ended }
}

// logsInSoon logs in once, or again as often as Retry-After says, but no longer than
// within.
func logsInSoon(t *testing.T, s *chatserver.Server, user, addr string, within time.Duration) {
	t.Helper()
	var last *http.Response
	for end := time.Now().Add(within); !time.Now().After(end); {
		last = tryLogin(s, user, user+"-pw", addr)
		if last.StatusCode == 200 {
			return
		}
		wait, err := strconv.Atoi(last.Header.Get("Retry-After"))
		if err != nil {
			break
		}
		<-time.After(time.Duration(wait) * time.Second)
	}
	t.Errorf("%s from %s within %v: %d", user, addr, within, last.StatusCode)
}

func TestNobodyElsesGuessesLockAUserOut(t *testing.T) {
	attacks := map[string]func(i int) string{
		"from one IPv6 /48": func(int) string {
			return fmt.Sprintf("2001:db8:1:%x::1", rand.IntN(1<<16))
		},
		"from two /56": func(i int) string {
			return fmt.Sprintf("2001:db8:%x:%x::1", i%2, rand.IntN(1<<8))
		},
		"from 20 IPv4 /24": func(i int) string {
			return fmt.Sprintf("198.51.%d.%d", i%20, rand.IntN(256))
		},
		"from 100 IPv6 /48": func(i int) string {
			return fmt.Sprintf("2001:db8:%x:%x::1", i%100, rand.IntN(1<<16))
		},
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := pipenet.Listen()
				s := serveInstantLogin(t, l)
				end := attackLogins(t, s, func(i int) (string, string, string) { return "ana", "wrong", attack(i) })
				<-time.After(time.Minute)
				for i := range 40 { // each a network in which she never was
					logsInSoon(t, s, "ana", fmt.Sprintf("203.0.%d.1", i), 0)
					<-time.After(6 * time.Second)
				}
				end()
			})
		})
	}
	t.Run("from more networks than the reserve has tries", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l := pipenet.Listen()
			s := serveInstantLogin(t, l)
			logsInSoon(t, s, "ana", "203.0.113.1", 0)
			end := attackLogins(t, s, func(i int) (string, string, string) {
				return "ana", "wrong", fmt.Sprintf("2001:db8:%x::1", i)
			})
			for range 20 {
				<-time.After(6 * time.Second)
				logsInSoon(t, s, "ana", "203.0.113.1", 0)
			}
			end()
		})
	})
}

func TestGuessesAtAUserFromEverywhereAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipenet.Listen()
		s := serveInstantLogin(t, l)
		checked := 0
		for i := range 5 * 3600 {
			if tryLogin(s, "ana", "wrong", fmt.Sprintf("2001:db8:%x::1", i)).StatusCode == 401 {
				checked++
			}
			<-time.After(200 * time.Millisecond)
		}
		if most := 600 + 2000; checked > most {
			t.Errorf("%d guesses in an hour, want %d at the most", checked, most)
		}
	})
}

// Many people may be behind one address.
func TestOneBehindAnAddressStopsNobodyElseThere(t *testing.T) {
	const addr = "192.0.2.1"
	names := make([]string, 50)
	for i := range names {
		names[i] = fmt.Sprint("eva", i)
	}
	attacks := map[string]struct {
		user func(i int) string
		also string // logs in there for the first time
	}{
		"at one user":                       {func(int) string { return "eva" }, "bob"},
		"at 50 users":                       {func(i int) string { return names[i%len(names)] }, "bob"},
		"at users without end":              {func(i int) string { return fmt.Sprint("eva", i) }, ""},
		"at 50 users, and right of its own": {func(i int) string { return append(names, "mallory", "mallory")[i%52] }, "bob"},
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := pipenet.Listen()
				s := serveInstantLogin(t, l)
				logsInSoon(t, s, "ana", addr, 0)
				end := attackLogins(t, s, func(i int) (string, string, string) {
					user := attack.user(i)
					if user == "mallory" {
						return user, "mallory-pw", addr
					}
					return user, "wrong", addr
				})
				for range 10 {
					<-time.After(20 * time.Second)
					logsInSoon(t, s, "ana", addr, 0)
				}
				if attack.also != "" {
					logsInSoon(t, s, attack.also, addr, 0)
				}
				end()
			})
		})
	}
}

// slowLogin checks one password after the other, 50 ms each.
type slowLogin struct {
	instantLogin
	turn chan struct{}
}

func (l slowLogin) Login(ctx context.Context, name, password string) (chat.Token, error) {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	<-time.After(50 * time.Millisecond)
	return l.instantLogin.Login(ctx, name, password)
}

func TestACrowdBehindAnAddressLogsInAsFastAsPasswordsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, err := chat.NewHS256(chatserver.Secret)
		if err != nil {
			t.Fatal(err)
		}
		l := pipenet.Listen()
		s := chatserver.ServeAuth(t, l, l.Dial, signer, slowLogin{instantLogin{signer}, make(chan struct{}, 1)}, byTestAddr)
		const users = 1500
		began := time.Now()
		var crowd sync.WaitGroup
		for i := range users {
			crowd.Go(func() { logsInSoon(t, s, fmt.Sprint("user", i), "192.0.2.1", time.Hour) })
		}
		crowd.Wait()
		if took, alone := time.Since(began), users*50*time.Millisecond; took > 2*alone {
			t.Errorf("took %v, of which the checks are %v", took, alone)
		}
	})
}

func TestTriesOfOneBudgetAreToRetryAtSeveralTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipenet.Listen()
		s := serveInstantLogin(t, l)
		after := make(map[string]bool)
		for i := range 340 {
			if resp := tryLogin(s, fmt.Sprint("user", i), "wrong", "192.0.2.1"); resp.StatusCode == 429 {
				after[resp.Header.Get("Retry-After")] = true
			}
		}
		if len(after) < 5 {
			t.Errorf("Retry-After of 100 refused tries: %v, want at least 5 different ones", after)
		}
	})
}

// busyLogin has too many wait for every user but ana.
type busyLogin struct{ instantLogin }

func (l busyLogin) Login(ctx context.Context, name, password string) (chat.Token, error) {
	if name != "ana" {
		return chat.Token{}, chat.ErrBusy
	}
	return l.instantLogin.Login(ctx, name, password)
}

func TestTriesThatEndBusyCountALittleForTheirNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, err := chat.NewHS256(chatserver.Secret)
		if err != nil {
			t.Fatal(err)
		}
		l := pipenet.Listen()
		s := chatserver.ServeAuth(t, l, l.Dial, signer, busyLogin{instantLogin{signer}}, byTestAddr)
		logsInSoon(t, s, "ana", "192.0.2.1", 0)
		answers := make(map[int]int)
		for i := range 3000 {
			answers[tryLogin(s, fmt.Sprint("user", i), "wrong", "192.0.2.1").StatusCode]++
		}
		if busy := answers[503]; busy < 500 || busy > 2000 || answers[429] != 3000-busy {
			t.Errorf("answers %v, want about 960 times 503, then 429", answers)
		}
		logsInSoon(t, s, "ana", "192.0.2.1", 0)
		if status := tryLogin(s, "bob", "bob-pw", "203.0.113.1").StatusCode; status != 503 {
			t.Errorf("from elsewhere: %d, want 503", status)
		}
	})
}
