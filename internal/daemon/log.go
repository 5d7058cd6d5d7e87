package daemon

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/reto10/chat/internal/sparinglog"
)

// debugLinesPerSecond bounds how many debug lines with the same message are logged in a
// second. Strangers can cause one with each request and each broken handshake. The number
// of lines left out is logged.
const debugLinesPerSecond = 200

func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if format == "json" {
		h = slog.NewJSONHandler(w, opts)
	}
	if level <= slog.LevelDebug {
		h = sparinglog.NewLevelHandler(h, slog.LevelDebug, debugLinesPerSecond)
	}
	return slog.New(h)
}

// serverLog returns the ErrorLog of an [http.Server]. Lines that any stranger can cause
// are logged at debug level only. The message is always the same, so debugLinesPerSecond
// bounds all of them together.
func serverLog(to *slog.Logger) *log.Logger {
	return log.New(serverLogWriter{to}, "", 0)
}

type serverLogWriter struct{ to *slog.Logger }

func (w serverLogWriter) Write(line []byte) (int, error) {
	level := slog.LevelWarn
	for _, prefix := range []string{"http: TLS handshake error", "http: URL query contains semicolon"} {
		if bytes.HasPrefix(line, []byte(prefix)) {
			level = slog.LevelDebug
		}
	}
	w.to.Log(context.Background(), level, "HTTP server problem", "said", string(bytes.TrimSpace(line)))
	return len(line), nil
}
