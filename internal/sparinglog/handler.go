// Package sparinglog limits how often a log repeats the same message. A problem that
// thousands of sockets have at once takes a few lines a second.
package sparinglog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// window is the time over which records are counted.
const window = time.Second

// Handler passes records to another Handler, but limits those of one level: of records
// with the same message, at most a fixed number a second pass. At the end of the second it
// logs how many were left out. Records of other levels all pass. It is safe for concurrent
// use.
type Handler struct {
	slog.Handler
	state *state
}

// state is shared by a Handler and those made from it by WithAttrs and WithGroup.
type state struct {
	level  slog.Level
	limit  int // records a second with the same message
	origin slog.Handler

	mu      sync.Mutex // guards what follows; not held while a record is logged
	closed  bool
	windows map[string]*counter // by message
}

// counter counts the records with one message in one window.
type counter struct {
	passed, dropped int
	end             *time.Timer
}

// NewHandler returns a Handler that passes at most limit warnings a second with the same
// message to h. The caller closes it.
func NewHandler(h slog.Handler, limit int) *Handler {
	return NewLevelHandler(h, slog.LevelWarn, limit)
}

// NewLevelHandler is NewHandler for records of another level.
func NewLevelHandler(h slog.Handler, level slog.Level, limit int) *Handler {
	return &Handler{h, &state{level: level, limit: limit, origin: h, windows: make(map[string]*counter)}}
}

// Handle implements [slog.Handler].
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == h.state.level && !h.state.pass(r.Message) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.Handler.WithAttrs(attrs), h.state}
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.Handler.WithGroup(name), h.state}
}

// Close logs how many records were left out so far. From then on all records pass.
func (h *Handler) Close() {
	s := h.state
	s.mu.Lock()
	s.closed = true
	open := s.windows
	s.windows = nil
	for _, c := range open {
		c.end.Stop()
	}
	s.mu.Unlock()
	for message, c := range open {
		s.report(message, c.dropped)
	}
}

// pass counts a record with a message and reports whether it may pass.
func (s *state) pass(message string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true
	}
	c := s.windows[message]
	if c == nil {
		c = new(counter)
		c.end = time.AfterFunc(window, func() { s.end(message, c) })
		s.windows[message] = c
	}
	if c.passed == s.limit {
		c.dropped++
		return false
	}
	c.passed++
	return true
}

// end ends the window of a message.
func (s *state) end(message string, c *counter) {
	s.mu.Lock()
	dropped := c.dropped
	if s.closed {
		dropped = 0 // Close reports them
	}
	delete(s.windows, message)
	s.mu.Unlock()
	s.report(message, dropped)
}

// report logs that records were left out.
func (s *state) report(message string, dropped int) {
	ctx := context.Background()
	if dropped == 0 || !s.origin.Enabled(ctx, s.level) {
		return
	}
	text, name := "too many warnings had the same message: the rest were left out", "warning"
	if s.level != slog.LevelWarn {
		text, name = "too many lines had the same message: the rest were left out", "line"
	}
	r := slog.NewRecord(time.Now(), s.level, text, 0)
	r.AddAttrs(slog.String(name, message), slog.Int("count", dropped), slog.Duration("within", window))
	_ = s.origin.Handle(ctx, r)
}
