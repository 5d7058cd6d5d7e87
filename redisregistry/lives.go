package redisregistry

import (
	"sync"
	"time"
)

// A stream expires one age after its last message. To extend that with every message would
// cost about as much as to store one, and so would looking for messages that are too old. So
// a node asks for both once in a lifePart of the age, and streams live for so much longer.
const lifePart = 64

// maxLives bounds the channels that a node remembers. It asks for others more often.
const maxLives = 10_000

// lives is when this node last asked for the streams of channels to live on.
type lives struct {
	part time.Duration

	mu    sync.Mutex // guards asked
	asked map[string]time.Duration
}

func newLives(age time.Duration) *lives {
	return &lives{part: age / lifePart, asked: make(map[string]time.Duration)}
}

// due reports whether the stream of a channel has to live on from now.
func (l *lives) due(channel string, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, known := l.asked[channel]
	return !known || now-at >= l.part
}

// extended notes that the stream of a channel lives on from a time.
func (l *lives) extended(channel string, at time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.asked) >= maxLives {
		clear(l.asked)
	}
	l.asked[channel] = at
}
