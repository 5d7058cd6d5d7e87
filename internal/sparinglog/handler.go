// Package sparinglog is a log in which one trouble of thousands of sockets takes a
// few lines a second.
package sparinglog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// window is the time over which lines are counted.
const window = time.Second

// Handler passes records of one level with the same message on to another Handler, but
// no more than so many a second; then it tells how many it left out. Records of other
// levels all pass. It is safe for concurrent use.
type Handler struct {
	slog.Handler
	state *state
}

// state is what a Handler shares with those made of it.
type state struct {
	level  slog.Level
	most   int
	origin slog.Handler

	mu      sync.Mutex // guards what follows; not held while logging
	closed  bool
	windows map[string]*counting // by message
}

// counting is a second of one message.
type counting struct {
	lines, left int
	end         *time.Timer
}

// NewHandler makes a Handler that passes at most so many warnings of a message on
// to h each second. The caller closes it.
func NewHandler(h slog.Handler, most int) *Handler {
	return NewLevelHandler(h, slog.LevelWarn, most)
}

// NewLevelHandler is NewHandler for records of that level alone.
func NewLevelHandler(h slog.Handler, level slog.Level, most int) *Handler {
	return &Handler{h, &state{level: level, most: most, origin: h, windows: make(map[string]*counting)}}
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

// Close tells what was left out so far. From then on everything passes.
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
		s.tell(message, c.left)
	}
}

// pass reports whether one more line with a message may pass, and counts it.
func (s *state) pass(message string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true
	}
	c := s.windows[message]
	if c == nil {
		c = new(counting)
		c.end = time.AfterFunc(window, func() { s.end(message, c) })
		s.windows[message] = c
	}
	if c.lines == s.most {
		c.left++
		return false
	}
	c.lines++
	return true
}

// end ends a second.
func (s *state) end(message string, c *counting) {
	s.mu.Lock()
	left := c.left
	if s.closed {
		left = 0 // Close tells it
	}
	delete(s.windows, message)
	s.mu.Unlock()
	s.tell(message, left)
}

func (s *state) tell(message string, left int) {
	ctx := context.Background()
	if left == 0 || !s.origin.Enabled(ctx, s.level) {
		return
	}
	text, name := "warnings were left out, there were too many", "warning"
	if s.level != slog.LevelWarn {
		text, name = "lines were left out, there were too many", "line"
	}
	r := slog.NewRecord(time.Now(), s.level, text, 0)
	r.AddAttrs(slog.String(name, message), slog.Int("count", left), slog.Duration("within", window))
	_ = s.origin.Handle(ctx, r)
}
