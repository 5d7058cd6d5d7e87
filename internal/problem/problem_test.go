package problem_test

import (
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/problem"
)

func TestAProblemIsAWholeAnswer(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("Retry-After", "5")
	w.Header().Set("Content-Length", "1") // of the answer that was meant first
	problem.Write(w, 503, `full <"now">`)

	want := `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"full \u003c\"now\"\u003e"}` + "\n"
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if w.Code != 503 {
		t.Errorf("status = %d, want 503", w.Code)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Retry-After": "5", "Content-Length": "",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}
