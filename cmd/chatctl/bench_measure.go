package main

import (
	"context"
	"errors"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/client"
)

// The fates of a message.
const (
	notSent int32 = iota
	sent
	acked
	refused
	unconfirmed // stored or not
)

// measure holds the results of a run.
type measure struct {
	mark     string // the beginning of all its messages
	messages int    // how many may be sent

	at   []atomic.Int64 // when each message was due, in nanoseconds since zero
	fate []atomic.Int32
	zero time.Time

	open      atomic.Int64 // sockets
	acks      histogram
	latencies histogram    // of the first delivery of each message to each socket
	repeated  atomic.Int64 // further deliveries
	broken    atomic.Int64 // lost connections and failed reconnects

	mu    sync.Mutex // guards these three
	first error      // the first failure of a message
	gone  error      // why the first of the ended sockets ended
	ended int        // sockets that ended

	// One goroutine sets these before others read them.
	opening    time.Duration
	began      time.Time
	elapsed    time.Duration // of publishing
	delivering time.Duration // from the first message to the last delivery
	cpu        time.Duration
	silenced   error // why the sender's connection ended
	fates      [unconfirmed + 1]int
	lost, owed int64
}

func newMeasure(name string, messages int) *measure {
	return &measure{
		mark:     "chatctl bench " + name + " ",
		messages: messages,
		at:       make([]atomic.Int64, messages),
		fate:     make([]atomic.Int32, messages),
		zero:     time.Now(),
	}
}

func (m *measure) begin() { m.began, m.cpu = time.Now(), cpuTime() }
func (m *measure) end()   { m.elapsed, m.cpu = time.Since(m.began), cpuTime()-m.cpu }

// content returns the content of message seq, of this size in bytes.
func (m *measure) content(seq, size int) string {
	text := m.mark + strconv.Itoa(seq) + " "
	return text + strings.Repeat("x", max(0, size-len(text)))
}

// number returns the seq of a content. ok is false for a message of another run.
func (m *measure) number(content string) (seq int, ok bool) {
	rest, ours := strings.CutPrefix(content, m.mark)
	digits, _, _ := strings.Cut(rest, " ")
	seq, err := strconv.Atoi(digits)
	return seq, ours && err == nil && seq >= 0 && seq < m.messages
}

// publish records that a message is being sent. Its latency counts from when it was due: a
// message that could not be sent because the server stalled has waited, too.
func (m *measure) publish(seq int, due time.Time) time.Duration {
	at := due.Sub(m.zero)
	m.at[seq].Store(int64(at))
	m.fate[seq].Store(sent)
	return at
}

// published records the outcome of sending a message.
func (m *measure) published(seq int, at time.Duration, err error) {
	switch {
	case err == nil:
		m.acks.observe(time.Since(m.zero) - at)
		m.fate[seq].Store(acked)
		return
	case errors.Is(err, client.ErrUnconfirmed), errors.Is(err, client.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		m.fate[seq].Store(unconfirmed)
	default:
		m.fate[seq].Store(refused)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first == nil {
		m.first = err
	}
}

// receive counts the deliveries to a socket until it is closed.
func (m *measure) receive(ctx context.Context, r *receiver) {
	for event, err := range r.client.Events(ctx) {
		switch e := event.(type) {
		case client.Message:
			seq, ok := m.number(e.Content)
			switch {
			case !ok || m.fate[seq].Load() == notSent: // not a message of this run
			case r.got.set(seq):
				m.latencies.observe(time.Since(m.zero) - time.Duration(m.at[seq].Load()))
			default:
				m.repeated.Add(1)
			}
		case client.Lost:
			m.broken.Add(1)
		}
		if err != nil && !errors.Is(err, client.ErrClosed) && ctx.Err() == nil {
			m.mu.Lock()
			if m.ended++; m.gone == nil {
				m.gone = err
			}
			m.mu.Unlock()
		}
	}
}

// settle waits until all stored messages are delivered, or deliveries have stopped.
func (m *measure) settle(f *fleet) {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	want := int64(0)
	for i := range m.fate {
		if m.fate[i].Load() == acked {
			want += int64(len(f.receivers))
		}
	}
	last, since := int64(-1), time.Now()
	defer func() { m.delivering = max(m.elapsed, since.Sub(m.began)) }()
	for {
		got := int64(m.latencies.count())
		if got != last {
			last, since = got, time.Now()
		}
		if got >= want || time.Since(since) > settling {
			return
		}
		<-poll.C
	}
}

// count compares the stored messages with those that each socket received.
func (m *measure) count(f *fleet) {
	stored := newBitset(m.messages)
	for i := range m.fate {
		fate := m.fate[i].Load()
		m.fates[fate]++
		if fate == acked {
			stored.set(i)
		}
	}
	for _, r := range f.receivers {
		m.owed += int64(m.fates[acked])
		m.lost += int64(stored.without(r.got))
	}
}

// bitset is a set of numbers.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

// set adds i and reports whether it is new.
func (s bitset) set(i int) bool {
	bit := uint64(1) << (i % 64)
	if s[i/64]&bit != 0 {
		return false
	}
	s[i/64] |= bit
	return true
}

// without returns how many numbers are in s and not in others.
func (s bitset) without(others bitset) (n int) {
	for i, word := range s {
		n += bits.OnesCount64(word &^ others[i])
	}
	return n
}
