package chaos

import (
	"sync"
	"time"
)

const (
	// noticeWithin bounds the time until nodes notice that the stored data went back in time,
	// in a channel without new messages: they check once a minute.
	noticeWithin = 90 * time.Second
	// sightSlack is how long an epoch may exist before this program sees it: a welcome may be on
	// its way.
	sightSlack = 10 * time.Second
)

// windows are the times in which faults may have lost something. It is safe for concurrent
// use.
type windows struct {
	mu   sync.Mutex // guards list
	list []*window
}

type window struct {
	from, to time.Time // to is zero until it is closed
	maybe    bool      // nothing is lost where nothing was stored in time
}

// open begins a window, which close ends. close may be called more than once.
func (w *windows) open() (close func()) { return w.start(&window{from: time.Now()}) }

// openMaybe is open for a fault that may lose nothing.
func (w *windows) openMaybe() (close func()) {
	return w.start(&window{from: time.Now(), maybe: true})
}

func (w *windows) start(now *window) (close func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, now)
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		now.to = time.Now()
	})
}

// since reports whether any window is open or was closed after t.
func (w *windows) since(t time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.list {
		if one.to.IsZero() || one.to.After(t) {
			return true
		}
	}
	return false
}

// recently reports whether any window is open or was closed within d.
func (w *windows) recently(d time.Duration) bool { return w.since(time.Now().Add(-d)) }

// between reports whether a whole window of a fault that certainly loses something lies
// after first and before second.
func (w *windows) between(first, second time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.list {
		if !one.maybe && one.from.After(first) && !one.to.IsZero() && one.to.Before(second) {
			return true
		}
	}
	return false
}

// Losses are what the faults lost, and how many losses were reported to clients.
type Losses struct {
	Messages   int // acknowledged, and no longer kept
	Reported   int // reports to clients, a channel each
	Deliveries int // acknowledged messages that those reports stand for, a client each
	Unreported int // clients, a channel each, that lack acknowledged messages without a report
}

// gap is a reported loss in a channel: the messages after one position, up to another.
type gap struct {
	channel  string
	from, to position
}

// position is a position in a channel that compares across the channel's epochs.
type position struct {
	epoch int // the first that was seen is 1; 0: none
	seq   uint64
}

func (p position) before(q position) bool {
	return p.epoch < q.epoch || p.epoch == q.epoch && p.seq < q.seq
}
