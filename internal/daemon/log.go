package daemon

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
)

func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// serverLog is where an [http.Server] writes what goes wrong between requests.
// What any stranger can have it write is of interest at debug level only.
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
	w.to.Log(context.Background(), level, string(bytes.TrimSpace(line)))
	return len(line), nil
}
