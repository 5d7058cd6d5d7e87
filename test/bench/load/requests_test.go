package load

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const testRequest = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"

func TestRequestsCountsAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		flush  bool // the head first
		status int
		fails  string
	}{
		"short":        {"ok", false, 201, ""},
		"long":         {strings.Repeat("x", 200<<10), false, 201, ""},
		"in two parts": {"ok", true, 201, ""},
		"other status": {"no", false, 500, "500 Internal Server Error"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var served atomic.Int64
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				served.Add(1)
				w.Header().Set("Content-Length", strconv.Itoa(len(tt.answer)))
				w.WriteHeader(tt.status)
				if tt.flush {
					_ = http.NewResponseController(w).Flush()
				}
				_, _ = w.Write([]byte(tt.answer))
			}))
			defer s.Close()
			r, err := NewRequests(ctx, s.Listener.Addr().String(), []byte(testRequest), 201, 3)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}()
			answered, took, err := r.Run(ctx, 20*time.Millisecond)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("Run: %v, want an error with %q", err, tt.fails)
				}
				return
			}
			if err != nil || answered < 3 || int64(answered) != served.Load() || took <= 0 {
				t.Errorf("Run = %d in %v, %v, want the %d served", answered, took, err, served.Load())
			}
		})
	}
}
