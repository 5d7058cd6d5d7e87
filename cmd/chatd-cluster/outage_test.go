package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// Messages that PostgreSQL stored and Redis could not publish reach the other nodes once
// Redis is back, although no message follows and the other nodes never lost Redis.
func TestWhatOneNodeCouldNotPublishComesWhenRedisIsBack(t *testing.T) {
	t.Parallel()
	redis, postgres := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	way := to(t, redis.Addr)
	prog := program(t)
	history := "CHATD_HISTORY=" + postgres.PostgresURL()
	one := prog.Start(t, []string{"CHATD_REGISTRY=" + strings.Replace(redis.RedisURL(), redis.Addr, way.addr, 1), history}, "-plaintext")
	two := prog.Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL(), history}, "-plaintext")
	admin := one.Token("admin")
	// In so many channels a node would need a minute to find the messages by itself.
	var channels []string
	for i := range 60 {
		channels = append(channels, "channel", fmt.Sprint("channel", i))
	}
	there := two.Connect(two.Token("user"), channels...)
	there.Want("welcome")
	post(t, one, admin, "before")
	there.Want("message")

	way.hush()
	var posting sync.WaitGroup
	var want, got []string
	for i := range 6 {
		want = append(want, fmt.Sprint("stored ", i))
		posting.Go(func() {
			status, body := one.Request(http.MethodPost, "/messages", admin,
				fmt.Sprintf(`{"channel":"channel%d","content":"stored %[1]d"}`, i))
			if status != http.StatusServiceUnavailable {
				t.Errorf("posting without Redis: status %d: %s", status, body)
			}
		})
	}
	posting.Wait()
	way.cut()
	way.mend()
	mended := time.Now()
	for range want {
		got = append(got, there.Want("message").Content)
	}
	if took := time.Since(mended); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// A node that has closed its clients' sockets exits with 0, whatever the state of its
// backends.
func TestDrainedWithoutItsBackendsANodeEndsWell(t *testing.T) {
	t.Parallel()
	redis, postgres := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	for _, backend := range []string{"Redis", "PostgreSQL"} {
		for how, fail := range map[string]func(*line){"hung": (*line).hush, "gone": (*line).cut} {
			t.Run(backend+" is "+how, func(t *testing.T) {
				t.Parallel()
				ways := map[string]*line{"Redis": to(t, redis.Addr), "PostgreSQL": to(t, postgres.Addr)}
				d := program(t).Start(t, []string{
					"CHATD_REGISTRY=" + strings.Replace(redis.RedisURL(), redis.Addr, ways["Redis"].addr, 1),
					"CHATD_HISTORY=" + strings.Replace(postgres.PostgresURL(), postgres.Addr, ways["PostgreSQL"].addr, 1),
				}, "-plaintext")
				s := d.Connect(d.Token("admin"))
				s.Want("welcome")
				fail(ways[backend])
				wstest.Eventually(t, "the node not to be ready", func() bool {
					status, _ := d.Request(http.MethodGet, "/readyz", "", "")
					return status == http.StatusServiceUnavailable
				})
				d.Signal(syscall.SIGTERM)
				if code := s.CloseCode(); code != 1001 {
					t.Errorf("the socket closed with %d, want 1001", code)
				}
				closed := time.Now()
				if code := d.ExitCode(); code != 0 {
					t.Errorf("exit code %d", code)
				}
				if took := time.Since(closed); took > 10*time.Second {
					t.Errorf("it took %v more to end", took)
				}
				if warned := strings.Contains(d.Logged(), "the other nodes notice it within the lease"); warned != (backend == "Redis") {
					t.Errorf("warned that the other nodes do not know that this node ends: %v", warned)
				}
			})
		}
	}
}

// With a second signal, the program does not wait for a backend.
func TestASecondSignalEndsTheWaitForABackend(t *testing.T) {
	t.Parallel()
	redis := chatdtest.StartRedis(t)
	way := to(t, redis.Addr)
	d := program(t).Start(t, []string{"CHATD_REGISTRY=" + strings.Replace(redis.RedisURL(), redis.Addr, way.addr, 1)}, "-plaintext")
	way.hush()
	d.Signal(syscall.SIGTERM)
	d.Await(regexp.MustCompile("msg=drained"))
	d.Signal(syscall.SIGINT) // a SIGTERM this early would count as the first one's double
	if code := d.ExitCode(); code != 1 || !strings.Contains(d.Logged(), "stopped at once by a second signal") {
		t.Errorf("exit code %d", code)
	}
}

// The host of a backend vanishes and another takes its address: requests on the old
// connections get no answer.
func TestConnectionsThatNobodyAnswersAreReplaced(t *testing.T) {
	t.Parallel()
	redis, postgres := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	for backend, server := range map[string]*chatdtest.Server{"Redis": redis, "PostgreSQL": postgres} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			way := to(t, server.Addr)
			env := []string{"CHATD_REGISTRY=" + redis.RedisURL(), "CHATD_HISTORY=" + postgres.PostgresURL()}
			for i := range env {
				env[i] = strings.Replace(env[i], server.Addr, way.addr, 1)
			}
			d := program(t).Start(t, env, "-plaintext", "-redis-prefix", "test:"+backend+":")
			admin := d.Token("admin")
			s := d.Connect(admin)
			s.Want("welcome")
			// As many connections as the pool may have.
			var busy sync.WaitGroup
			for i := range 64 {
				busy.Go(func() {
					for range 20 {
						path, method, body := "/messages", http.MethodGet, ""
						if i%2 == 0 {
							method, body = http.MethodPost, `{"content":"x"}`
						}
						status, answer := d.Request(method, path, admin, body)
						if status == http.StatusTooManyRequests && method == http.MethodGet {
							continue // a user reads a few pages at once: on a slow machine the others wait too long
						}
						if status/100 != 2 {
							t.Errorf("%s: status %d: %s", method, status, answer)
							return
						}
					}
				})
			}
			busy.Wait()
			way.strand()
			began := time.Now()
			wstest.Eventually(t, "a message to be stored and published", func() bool {
				status, _ := d.Request(http.MethodPost, "/messages", admin, `{"content":"y"}`)
				return status == http.StatusCreated
			})
			if took := time.Since(began); took > 12*time.Second { // one after the other, they would take longer
				t.Errorf("it took %v", took)
			}
			for s.Want("message").Content != "y" {
			}
		})
	}
}
