// Package problem writes HTTP errors as application/problem+json (RFC 9457).
package problem

import (
	"encoding/json"
	"net/http"
)

// Problem is the body of an error. It contains no secret.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Write answers with a problem. Headers that were set on w before are sent with it.
func Write(w http.ResponseWriter, status int, detail string) {
	body, _ := json.Marshal(Problem{ // plain strings: never an error
		Type:   "about:blank", // RFC 9457, section 4.2.1: the title is the status's
		Title:  http.StatusText(status),
		Status: status,
		Detail: detail,
	})
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
