package sqlhistory

import "context"

// SweepNow deletes what is not to be kept any more, as happens every minute.
func (h *History) SweepNow(ctx context.Context) error { return h.sweep(ctx) }
