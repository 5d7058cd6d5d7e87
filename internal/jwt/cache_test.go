package jwt_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/jwt"
)

func TestACacheChecksTheTimeAtEachCall(t *testing.T) {
	claims := jwt.Claims{Subject: "ana", Role: "user", Expires: now.Add(time.Minute), NotBefore: now}
	tests := []struct {
		name string
		at   time.Duration
		want error
	}{
		{"when added", 0, nil},
		{"a moment before it expires", time.Minute - 1, nil},
		{"the clock set back as far as the leeway", -jwt.Leeway, nil},
		{"the clock set back further", -jwt.Leeway - 1, jwt.ErrNotYet},
		{"when it expires", time.Minute, jwt.ErrExpired},
	}
	var c jwt.Cache
	sum := jwt.Sum("token")
	c.Add(sum, claims, now)
	for _, test := range tests { // the last one makes the cache forget the token
		got, known, err := c.Get(sum, now.Add(test.at))
		if !known || !errors.Is(err, test.want) {
			t.Errorf("%s: known %v, error %v, want %v", test.name, known, err, test.want)
		}
		if diff := cmp.Diff(claims, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	if _, known, _ := c.Get(sum, now); known {
		t.Error("an expired token is still known")
	}
}

func TestACacheTellsTokensApart(t *testing.T) {
	token := sign(`{"alg":"HS256"}`, `{"sub":"ana","exp":2000000000}`)
	var c jwt.Cache
	c.Add(jwt.Sum(token), jwt.Claims{Subject: "ana", Expires: now.Add(time.Hour)}, now)
	for i := range token {
		other := token[:i] + string(token[i]^1) + token[i+1:]
		if _, known, _ := c.Get(jwt.Sum(other), now); known {
			t.Errorf("a token that differs in byte %d is known", i)
		}
	}
	for _, other := range []string{"", token[1:], token[:len(token)-1], token + "A", strings.Repeat(token, 100)} {
		if _, known, _ := c.Get(jwt.Sum(other), now); known {
			t.Errorf("a token of %d bytes is known", len(other))
		}
	}
	if _, known, _ := c.Get(jwt.Sum(token), now); !known {
		t.Error("the token itself is not known")
	}
}

func TestACacheIsBounded(t *testing.T) {
	const tokens, most, least = 10_000, 4096, 3000
	var c jwt.Cache
	add := func(what string, from time.Time) (known int) {
		for i := range tokens {
			c.Add(jwt.Sum(fmt.Sprint(what, i)), jwt.Claims{Subject: what, Expires: from.Add(time.Hour)}, from)
		}
		for i := range tokens {
			if got, ok, err := c.Get(jwt.Sum(fmt.Sprint(what, i)), from); ok {
				known++
				if got.Subject != what || err != nil {
					t.Fatalf("%s %d: %+v, %v", what, i, got, err)
				}
			}
		}
		return known
	}
	if known := add("first", now); known > most || known < least {
		t.Errorf("%d of %d tokens are known, want %d to %d", known, tokens, least, most)
	}
	if known := add("later", now.Add(2*time.Hour)); known > most || known < least {
		t.Errorf("after the first expired: %d of %d tokens are known, want %d to %d", known, tokens, least, most)
	}
}

// A full set gives up its expired token first.
func TestACacheReplacesExpiredTokensFirst(t *testing.T) {
	var c jwt.Cache
	const ways = 4
	sum := func(i int) (sum [32]byte) {
		sum[31] = byte(i) // all in one set
		return sum
	}
	expires := func(i int) time.Time {
		if i == 1 {
			return now.Add(time.Second)
		}
		return now.Add(time.Hour)
	}
	for i := range ways {
		c.Add(sum(i), jwt.Claims{Expires: expires(i)}, now)
	}
	later := now.Add(time.Minute)
	c.Add(sum(ways), jwt.Claims{Expires: expires(ways)}, later)
	for i := range ways + 1 {
		if _, known, _ := c.Get(sum(i), later); known != (i != 1) {
			t.Errorf("token %d: known %v", i, known)
		}
	}
}

func TestACacheIsSafeForConcurrentUse(t *testing.T) {
	var c jwt.Cache
	var workers sync.WaitGroup
	for worker := range 8 {
		workers.Go(func() {
			for i := range 4000 {
				name := fmt.Sprint((i * (worker + 1)) % 6000)
				expires := now.Add(time.Duration(len(name)) * time.Second)
				at := now.Add(time.Duration(i%8) * time.Second)
				c.Add(jwt.Sum(name), jwt.Claims{Subject: name, Expires: expires}, at)
				if got, known, err := c.Get(jwt.Sum(name), at); known && (got.Subject != name || (err == nil) != expires.After(at)) {
					t.Errorf("%s at %v: %+v, %v", name, at, got, err)
				}
			}
		})
	}
	workers.Wait()
}

func BenchmarkCache(b *testing.B) {
	token := sign(`{"alg":"HS256"}`, `{"sub":"ana","role":"admin","exp":2e9}`)
	var c jwt.Cache
	c.Add(jwt.Sum(token), jwt.Claims{Subject: "ana", Expires: now.Add(time.Hour)}, now)
	b.ReportAllocs()
	for b.Loop() {
		if _, known, err := c.Get(jwt.Sum(token), now); !known || err != nil {
			b.Fatal(known, err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	token := sign(`{"alg":"HS256","typ":"JWT"}`, `{"aud":["chat"],"exp":2000000000,"iat":1000000000,"iss":"me","jti":"ABCDEFGHIJKLMNOPQRSTUVWXYZ","role":"admin","sub":"ana"}`)
	b.ReportAllocs()
	for b.Loop() {
		parsed, err := jwt.Parse(token)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := parsed.Claims(rules, now); err != nil {
			b.Fatal(err)
		}
	}
}
