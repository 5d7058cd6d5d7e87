package daemon

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestLeavingServesOnForTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := leaving{delay: 3 * time.Second}
		ask := func(header http.Header) string {
			answer := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header = header
			l.around(http.NotFoundHandler()).ServeHTTP(answer, r)
			return answer.Header().Get("Connection")
		}
		if got := ask(http.Header{}); got != "" {
			t.Errorf("before: Connection: %s", got)
		}
		began, over := time.Now(), make(chan time.Duration, 1)
		go func() {
			l.pause(t.Context())
			over <- time.Since(began)
		}()
		synctest.Wait()
		if got := ask(http.Header{}); got != "close" {
			t.Errorf("meanwhile: Connection: %s", got)
		}
		if got := ask(http.Header{"Upgrade": {"websocket"}}); got != "" {
			t.Errorf("an upgrade: Connection: %s", got)
		}
		if took := <-over; took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l.pause(ctx) // returns at once
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("behind the end of its context it took %v", took)
		}
	})
}

func TestADelayMayBeNone(t *testing.T) {
	for text, want := range map[string]time.Duration{"0s": 0, "0": 0, "3s": 3 * time.Second} {
		if got, err := parseDelay(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1s", "3"} {
		if got, err := parseDelay(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}
