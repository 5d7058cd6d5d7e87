package daemon

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/reto10/chat/internal/sparinglog"
)

// debugASecond is how many lines with the same message are logged a second at debug
// level: there is one for each request and each broken handshake of strangers. What is
// left out is counted.
const debugASecond = 200

func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if format == "json" {
		h = slog.NewJSONHandler(w, opts)
	}
	if level <= slog.LevelDebug {
		h = sparinglog.NewLevelHandler(h, slog.LevelDebug, debugASecond)
	}
	return slog.New(h)
}

// serverLog is where an [http.Server] writes what goes wrong between requests.
// What any stranger can have it write is of interest at debug level only. The message
// is always the same, so that what is left out of too many is of all of them.
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
	w.to.Log(context.Background(), level, "serving connections", "said", string(bytes.TrimSpace(line)))
	return len(line), nil
}
