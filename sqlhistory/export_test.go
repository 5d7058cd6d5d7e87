package sqlhistory

import "context"

// SweepNow deletes expired messages, which otherwise happens every minute.
func (h *History) SweepNow(ctx context.Context) error { return h.sweep(ctx) }
