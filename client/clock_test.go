package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

// source issues tokens that live for ttl. If fail returns an error, it returns that instead.
type source struct {
	t     *testing.T
	ttl   time.Duration
	calls atomic.Int32
	fail  func() error
}

func (s *source) Token(context.Context) (string, error) {
	s.calls.Add(1)
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return "", err
		}
	}
	return tokenFor(s.t, "ana", s.ttl), nil
}

// outcome is what happened in some time.
type outcome struct {
	connected int
	lost      []client.Lost
	err       error         // at the end
	after     time.Duration // how long it took
}

// during reads a client's events for a time, or until it ends.
func during(t *testing.T, d time.Duration, c *client.Client) (o outcome) {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for event, err := range c.Events(ctx) {
		if err != nil {
			o.err, o.after = err, time.Since(start)
			break
		}
		switch e := event.(type) {
		case client.Welcome:
			o.connected++
		case client.Lost:
			o.lost = append(o.lost, e)
		}
	}
	return o
}

func dialPipes(t *testing.T, s *server, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), s.url, append([]client.Option{client.WithHTTPClient(s.http)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestATokenIsRenewedAheadOfItsEnd(t *testing.T) {
	tests := []struct {
		name     string
		fail     func(begin time.Time) error
		min, max int32 // times that the source is asked in two hours
	}{
		{"always to be had", func(time.Time) error { return nil }, 13, 20},
		{"but for a minute", func(begin time.Time) error {
			if since := time.Since(begin); since > 7*time.Minute && since < 8*time.Minute {
				return errors.New("down")
			}
			return nil
		}, 13, 25},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				src := &source{t: t, ttl: 10 * time.Minute, fail: func() error { return tt.fail(begin) }}
				o := during(t, 2*time.Hour, dialPipes(t, servePipes(t, nil), client.WithTokenSource(src)))
				if o.connected != 1 || len(o.lost) > 0 || !errors.Is(o.err, context.DeadlineExceeded) {
					t.Errorf("got %+v, want one connection", o)
				}
				if n := src.calls.Load(); n < tt.min || n > tt.max {
					t.Errorf("the source was asked %d times", n)
				}
			})
		})
	}
}

func TestALoginIsRepeatedAheadOfTheTokensEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users, err := chat.ParseUsers(strings.NewReader("ana:$2y$04$swMcZUBPNP6fe9ZRQd80j.F6XcE9VA.z1G03CUCau/0J9hYzQng2i:admin\n"))
		if err != nil {
			t.Fatal(err)
		}
		signer, err := chat.NewHS256(secret, chat.WithTokenTTL(5*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		s := servePipesAs(t, chat.NewPasswordLogin(users, signer), nil)
		c := dialPipes(t, s, client.WithLogin("ana", "correct horse"))
		if o := during(t, time.Hour, c); o.connected != 1 || len(o.lost) > 0 {
			t.Errorf("got %+v, want one connection", o)
		}
		if _, err := c.Broadcast(t.Context(), "still an admin"); err != nil {
			t.Error(err)
		}

		_, err = client.Dial(t.Context(), s.url, client.WithHTTPClient(s.http), client.WithLogin("ana", "hunter2"))
		if !errors.Is(err, client.ErrUnauthenticated) || strings.Contains(err.Error(), "hunter2") ||
			!strings.Contains(err.Error(), "wrong username or password") {
			t.Errorf("a wrong password: %v", err)
		}
		for range 10 {
			_, err = client.Dial(t.Context(), s.url, client.WithHTTPClient(s.http), client.WithLogin("ana", "hunter2"))
		}
		if status, ok := errors.AsType[*client.StatusError](err); !ok || !errors.Is(err, client.ErrRateLimited) || status.RetryAfter <= 0 {
			t.Errorf("too many tries: %v", err)
		}
	})
}

func TestWhenTheTokenEnds(t *testing.T) {
	refused := fmt.Errorf("the account is closed: %w", client.ErrUnauthenticated)
	tests := []struct {
		name      string
		fail      func(since time.Duration) error // of the source; nil: the token is fixed
		connected int
		after     time.Duration // the end; 0: none in an hour
		lost      bool
	}{
		{"and is fixed", nil, 1, 10 * time.Minute, false},
		{"and there is none any more", func(since time.Duration) error {
			if since > time.Minute {
				return refused
			}
			return nil
		}, 1, 10 * time.Minute, true},
		{"and there is none for a while", func(since time.Duration) error {
			if since > time.Minute && since < 20*time.Minute {
				return errors.New("down")
			}
			return nil
		}, 2, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				opt := client.WithToken(tokenFor(t, "ana", 10*time.Minute))
				if tt.fail != nil {
					opt = client.WithTokenSource(&source{t: t, ttl: 10 * time.Minute, fail: func() error { return tt.fail(time.Since(begin)) }})
				}
				o := during(t, time.Hour, dialPipes(t, servePipes(t, nil), opt))
				if o.connected != tt.connected || len(o.lost) > 0 != tt.lost {
					t.Errorf("got %+v", o)
				}
				if tt.after == 0 {
					if !errors.Is(o.err, context.DeadlineExceeded) {
						t.Errorf("ended with %v", o.err)
					}
				} else if !errors.Is(o.err, client.ErrUnauthenticated) || o.after < tt.after-2*time.Second || o.after > tt.after+2*time.Second {
					t.Errorf("ended after %v with %v", o.after, o.err)
				}
			})
		})
	}
}

// first replaces the service's answers to the first attempts to connect.
func first(n int32, from int32, h http.HandlerFunc) func(http.Handler) http.Handler {
	var tries atomic.Int32
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/ws/chat") {
				if try := tries.Add(1); try > from && try <= from+n {
					h(w, r)
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

func answer(status int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
	}
}

// accept upgrades and then calls script.
func accept(script func(conn *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat.v1"}})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		script(conn)
	}
}

const aWelcome = `{"type":"welcome","session":"s","user":"ana","role":"user","expires_in":3600,"since":["0-e","0-e-@ana"],"new":{"to":["you"]}}`

func send(conn *websocket.Conn, texts ...string) {
	for _, text := range texts {
		_ = conn.Write(context.Background(), websocket.MessageText, []byte(text))
	}
}

func TestHowLongIsWaitedBeforeTheNextTry(t *testing.T) {
	closing := func(code websocket.StatusCode) http.HandlerFunc {
		return accept(func(conn *websocket.Conn) {
			send(conn, aWelcome)
			_ = conn.Close(code, "for a test")
		})
	}
	const day = 24 * time.Hour
	tests := []struct {
		name     string
		h        http.HandlerFunc
		min, max time.Duration // of every wait but the first, which is for the cut
		doubles  bool
	}{
		{"unavailable", answer(503), 0, 30 * time.Second, true},
		{"a proxy that is lost", answer(502), 0, 30 * time.Second, true},
		{"unavailable, with a time to wait", answer(503, "Retry-After", "120"), 2 * time.Minute, 150 * time.Second, false},
		{"too many tries", answer(429, "Retry-After", "60"), time.Minute, 75 * time.Second, false},
		{"an invalid time to wait", answer(503, "Retry-After", "9999999999999999999999"), 0, 30 * time.Second, true},
		{"a time to wait that is too long", answer(503, "Retry-After", "86400"), 5 * time.Minute, 375 * time.Second, false},
		{"a redirect", answer(302, "Location", "https://elsewhere.test/?token=x"), 0, 30 * time.Second, true},
		{"closes at once", closing(1011), 0, 30 * time.Second, true},
		{"goes away at once", closing(1001), 0, 30 * time.Second, true},
		{"slow at once", closing(4003), 0, 30 * time.Second, true},
		{"too fast", closing(4005), 10 * time.Second, 30 * time.Second, false},
		{"an unknown code", closing(4999), 0, 30 * time.Second, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const tries = 40
				s := servePipes(t, first(tries, 1, tt.h))
				c := dialPipes(t, s, client.WithToken(tokenFor(t, "ana", 2*day)))
				time.AfterFunc(time.Minute, s.pipes.cut)
				var lost []client.Lost
				for event, err := range c.Events(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					if l, ok := event.(client.Lost); ok {
						lost = append(lost, l)
					} else if _, ok := event.(client.Welcome); ok && len(lost) > tries {
						break
					}
				}
				if len(lost) != tries+1 {
					t.Fatalf("lost %d times, want %d", len(lost), tries+1)
				}
				var total time.Duration
				for i, l := range lost {
					total += l.Retry
					if i == 0 {
						continue
					}
					if l.Retry < tt.min || l.Retry > tt.max {
						t.Errorf("try %d: %v to wait, want %v to %v", i, l.Retry, tt.min, tt.max)
					}
					if ceiling := 500 * time.Millisecond << min(i, 6); tt.doubles && l.Retry > ceiling {
						t.Errorf("try %d: %v to wait, want %v at the most", i, l.Retry, ceiling)
					}
				}
				if tt.doubles && total < time.Minute {
					t.Errorf("%d tries in %v", tries, total)
				}
			})
		})
	}
}

func TestASilentServerIsNoticed(t *testing.T) {
	noticed := func(t *testing.T, c *client.Client, within time.Duration) {
		t.Helper()
		start := time.Now()
		o := during(t, within, c)
		if len(o.lost) == 0 || !strings.Contains(o.lost[0].Err.Error(), "silent") {
			t.Errorf("after %v: %+v", time.Since(start), o)
		}
	}
	t.Run("after a while", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := servePipes(t, nil, chat.WithHeartbeat(time.Hour))
			c := dialPipes(t, s, client.WithToken(tokenFor(t, "ana", 24*time.Hour)))
			if o := during(t, 50*time.Minute, c); o.connected != 1 || len(o.lost) > 0 {
				t.Errorf("one that is there: %+v", o)
			}
			s.pipes.silence()
			noticed(t, c, 50*time.Second)
		})
	})
	t.Run("in the middle of a frame", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := servePipes(t, first(1, 0, upgrade(func(conn net.Conn) {
				_, _ = conn.Write(text(aWelcome))
				_, _ = conn.Write(frame(0x81, "x", 1<<62))
				_, _ = io.Copy(io.Discard, conn)
			})))
			c := dialPipes(t, s, client.WithToken(tokenFor(t, "ana", 24*time.Hour)))
			noticed(t, c, 50*time.Second)
		})
	})
}

func TestAServerThatDoesNotWelcomeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t, first(1, 0, accept(func(conn *websocket.Conn) { _, _, _ = conn.Read(context.Background()) })))
		start := time.Now()
		_, err := client.Dial(t.Context(), s.url, client.WithHTTPClient(s.http), client.WithToken("t"))
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 31*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// A token may expire between the handshake and the welcome.
func TestATokenThatEndsBeforeTheWelcome(t *testing.T) {
	for name, connected := range map[string]int{"fixed": 1, "of a source": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := servePipes(t, first(1, 1, accept(func(conn *websocket.Conn) { _ = conn.Close(4001, "the token expired") })))
				src := &source{t: t, ttl: time.Hour}
				opt := client.WithTokenSource(src)
				if connected == 1 {
					opt = client.WithToken(tokenFor(t, "ana", time.Hour))
				}
				c := dialPipes(t, s, opt)
				time.AfterFunc(time.Minute, s.pipes.cut)
				o := during(t, 10*time.Minute, c)
				if o.connected != connected || errors.Is(o.err, client.ErrUnauthenticated) != (connected == 1) {
					t.Errorf("got %+v", o)
				}
				if n := src.calls.Load(); connected == 2 && n != 2 {
					t.Errorf("the source was asked %d times", n)
				}
			})
		})
	}
}

// An old token that is refused is replaced at once, a fresh one a moment later, once.
func TestARefusedTokenIsReplaced(t *testing.T) {
	tests := map[int32]struct {
		connected int
		asked     int32
	}{1: {2, 2}, 2: {2, 3}, 3: {1, 3}}
	for refusals, tt := range tests {
		t.Run(fmt.Sprint(refusals), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := servePipes(t, first(refusals, 1, answer(401)))
				src := &source{t: t, ttl: time.Hour}
				c := dialPipes(t, s, client.WithTokenSource(src))
				time.AfterFunc(time.Minute, s.pipes.cut)
				o := during(t, 10*time.Minute, c)
				if o.connected != tt.connected || errors.Is(o.err, client.ErrUnauthenticated) != (tt.connected == 1) {
					t.Errorf("got %+v", o)
				}
				if n := src.calls.Load(); n != tt.asked {
					t.Errorf("the source was asked %d times", n)
				}
			})
		})
	}
}

// The issuer's clock is half a second ahead of the server's.
func TestAFreshTokenThatIsRefusedHasAnotherChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{t: t, ttl: time.Hour}
		var got atomic.Int64 // when the last token was issued
		behind := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if time.Since(time.Unix(0, got.Load())) < 500*time.Millisecond {
					answer(401)(w, r)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
		s := servePipes(t, behind)
		source := client.TokenSourceFunc(func(ctx context.Context) (string, error) {
			got.Store(time.Now().UnixNano())
			return src.Token(ctx)
		})
		c := dialPipes(t, s, client.WithTokenSource(source))
		if n := src.calls.Load(); n != 2 {
			t.Errorf("the source was asked %d times", n)
		}
		if c.Username() == "" {
			t.Error("it is nobody")
		}
		api, err := client.NewAPI(s.url, client.WithHTTPClient(s.http), client.WithTokenSource(source))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.Messages(t.Context(), client.Query{}); err != nil {
			t.Errorf("Messages: %v", err)
		}
	})
}
