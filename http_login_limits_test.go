package chat_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/pipenet"
)

// attackLogins makes tries, 20 a second, until the function returned is called.
func attackLogins(t *testing.T, s *server, attack func(i int) (user, password, addr string)) (end func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
			}
			s.tryLogin(attack(i))
		}
	}()
	return func() { close(over); <-ended }
}

// logsInSoon logs in once, or again as often as Retry-After says, but no longer than
// within.
func logsInSoon(t *testing.T, s *server, user, addr string, within time.Duration) {
	t.Helper()
	var last *http.Response
	for end := time.Now().Add(within); !time.Now().After(end); {
		last = s.tryLogin(user, user+"-pw", addr)
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
			if s.tryLogin("ana", "wrong", fmt.Sprintf("2001:db8:%x::1", i)).StatusCode == 401 {
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
		signer, err := chat.NewHS256(secret)
		if err != nil {
			t.Fatal(err)
		}
		l := pipenet.Listen()
		s := serveAuth(t, l, l.Dial, signer, slowLogin{instantLogin{signer}, make(chan struct{}, 1)}, byTestAddr)
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

func TestThoseWhoShareABudgetAreToldToRetryAtSeveralTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipenet.Listen()
		s := serveInstantLogin(t, l)
		after := make(map[string]bool)
		for i := range 340 {
			if resp := s.tryLogin(fmt.Sprint("user", i), "wrong", "192.0.2.1"); resp.StatusCode == 429 {
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
		signer, err := chat.NewHS256(secret)
		if err != nil {
			t.Fatal(err)
		}
		l := pipenet.Listen()
		s := serveAuth(t, l, l.Dial, signer, busyLogin{instantLogin{signer}}, byTestAddr)
		logsInSoon(t, s, "ana", "192.0.2.1", 0)
		answers := make(map[int]int)
		for i := range 3000 {
			answers[s.tryLogin(fmt.Sprint("user", i), "wrong", "192.0.2.1").StatusCode]++
		}
		if busy := answers[503]; busy < 500 || busy > 2000 || answers[429] != 3000-busy {
			t.Errorf("answers %v, want about 960 times 503, then 429", answers)
		}
		logsInSoon(t, s, "ana", "192.0.2.1", 0)
		if status := s.tryLogin("bob", "bob-pw", "203.0.113.1").StatusCode; status != 503 {
			t.Errorf("from elsewhere: %d, want 503", status)
		}
	})
}
