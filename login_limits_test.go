package chat_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat/internal/pipenet"
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
