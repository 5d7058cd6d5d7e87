package throttle

import (
	"sync"
	"time"
)

// Meter bounds how much each key uses a second, after a burst, when the amount is known
// only after the use. Use beyond the bound is a debt that delays the key's next use. A
// Meter is safe for concurrent use.
//
// It remembers a key only until its use is paid at the rate.
type Meter struct {
	rate  float64 // a second
	burst time.Duration

	mu    sync.Mutex           // guards what follows
	full  map[string]time.Time // when a key's use is paid
	sweep int                  // the number of keys at which paid ones are dropped
}

// minSweep is the lowest number of keys at which a Meter drops paid ones.
const minSweep = 1024

// NewMeter returns a meter that allows each key burst at once and then perSecond. Both are
// positive.
func NewMeter(perSecond, burst int) *Meter {
	return &Meter{
		rate:  float64(perSecond),
		burst: time.Duration(float64(burst) / float64(perSecond) * float64(time.Second)),
		full:  make(map[string]time.Time),
		sweep: minSweep,
	}
}

// Delay returns how long the key has to wait before it uses more, 0 for not at all.
func (m *Meter) Delay(key string) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	full, known := m.full[key]
	if !known {
		return 0
	}
	return max(0, time.Until(full)-m.burst)
}

// Use notes that the key has used an amount.
func (m *Meter) Use(key string, amount int) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	full := m.full[key]
	if full.Before(now) {
		full = now
	}
	m.full[key] = full.Add(time.Duration(float64(amount) / m.rate * float64(time.Second)))
	if len(m.full) < m.sweep {
		return
	}
	for key, full := range m.full {
		if !full.After(now) {
			delete(m.full, key)
		}
	}
	m.sweep = max(minSweep, 2*len(m.full))
}
