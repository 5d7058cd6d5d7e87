package main

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// However often clients request /readyz, the node checks its backends once a second and
// logs once that it is not ready.
func TestAskingForReadinessCostsTheBackendsNothing(t *testing.T) {
	t.Parallel()
	redis, postgres := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	toRedis, toPostgres := to(t, redis.Addr), to(t, postgres.Addr)
	d := program(t).Start(t, []string{
		"CHATD_REGISTRY=" + strings.Replace(redis.RedisURL(), redis.Addr, toRedis.addr, 1),
		"CHATD_HISTORY=" + strings.Replace(postgres.PostgresURL(), postgres.Addr, toPostgres.addr, 1),
	}, "-plaintext")
	const requests = 4000
	ask := func(want int) {
		t.Helper()
		var asking sync.WaitGroup
		for range 8 {
			asking.Go(func() {
				for range requests / 8 {
					if status, body := d.Request(http.MethodGet, "/readyz", "", ""); status != want {
						t.Errorf("status %d, want %d: %s", status, want, body)
						return
					}
				}
			})
		}
		asking.Wait()
	}
	status := func() int {
		status, _ := d.Request(http.MethodGet, "/readyz", "", "")
		return status
	}
	wstest.Eventually(t, "the node to be ready", func() bool { return status() == http.StatusOK })
	before := toRedis.passed.Load() + toPostgres.passed.Load()
	ask(http.StatusOK)
	if passed := toRedis.passed.Load() + toPostgres.passed.Load() - before; passed > requests/4 {
		t.Errorf("%d requests had something go to the backends or come from them %d times", requests, passed)
	}

	toPostgres.cut()
	wstest.Eventually(t, "the history to be missed", func() bool { return status() == http.StatusServiceUnavailable })
	ask(http.StatusServiceUnavailable)
	if n := strings.Count(d.Logged(), `msg="not ready"`); n != 1 {
		t.Errorf("%d requests, %d lines say that it is not ready", requests, n)
	}
}
