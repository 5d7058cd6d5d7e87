package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/client"
	"github.com/reto10/chat/internal/terminal"
)

// The fates of a message.
const (
	notSent int32 = iota
	sent
	acked
	refused
	unconfirmed // stored or not
)

// measure is what a run finds out.
type measure struct {
	mark     string // what its messages begin with
	messages int    // as many may be sent

	at   []atomic.Int64 // when each was published, in nanoseconds since zero
	fate []atomic.Int32
	zero time.Time

	open      atomic.Int64 // sockets
	acks      histogram
	latencies histogram    // of deliveries, each message once at a socket
	repeated  atomic.Int64 // deliveries beyond that
	broken    atomic.Int64 // connections that were lost, and made again

	mu    sync.Mutex
	first error // of those that a message was refused for
	gone  error // why the first of the sockets ended that did
	ended int   // how many did

	// Set by one goroutine, before what reads them begins.
	opening    time.Duration
	began      time.Time
	elapsed    time.Duration
	cpu        time.Duration
	silenced   error // why the one who sends could not go on
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

// content is what message seq says, in so many bytes.
func (m *measure) content(seq, size int) string {
	text := m.mark + strconv.Itoa(seq) + " "
	return text + strings.Repeat("x", max(0, size-len(text)))
}

// number is the seq of a content, if it is of this run.
func (m *measure) number(content string) (seq int, ok bool) {
	rest, ours := strings.CutPrefix(content, m.mark)
	digits, _, _ := strings.Cut(rest, " ")
	seq, err := strconv.Atoi(digits)
	return seq, ours && err == nil && seq >= 0 && seq < m.messages
}

// publish notes that a message goes out now.
func (m *measure) publish(seq int) time.Duration {
	at := time.Since(m.zero)
	m.at[seq].Store(int64(at))
	m.fate[seq].Store(sent)
	return at
}

// published notes what came of it.
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

// receive counts what comes to a socket, until it is closed.
func (m *measure) receive(ctx context.Context, r *receiver) {
	for event, err := range r.client.Events(ctx) {
		switch e := event.(type) {
		case client.Message:
			seq, ok := m.number(e.Content)
			switch {
			case !ok || m.fate[seq].Load() == notSent: // by somebody else
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

// settle waits until all has come that is on its way, or nothing comes any more.
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
	for {
		got := int64(m.latencies.count())
		if got >= want {
			return
		}
		if got != last {
			last, since = got, time.Now()
		}
		if time.Since(since) > settling {
			return
		}
		<-poll.C
	}
}

// count compares what was sent with what each socket got.
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

// verdict is an error when something was not as it is to be.
func (m *measure) verdict() error {
	var wrong []string
	for _, w := range []struct {
		n    int64
		what string
	}{
		{m.lost, "lost"},
		{m.repeated.Load(), "repeated"},
		{int64(m.fates[refused]), "refused"},
		{int64(m.fates[unconfirmed]), "unconfirmed"},
	} {
		if w.n > 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s", w.n, w.what))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New("not all went well: " + strings.Join(wrong, ", "))
}

// report prints the figures.
func (m *measure) report(w io.Writer, b *bench) error {
	var text bytes.Buffer
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&text, "%-10s %s\n", what, fmt.Sprintf(format, args...))
	}
	open := m.open.Load()
	if open < int64(b.sockets) {
		line("sockets", "%d of %d open after %s", open, b.sockets, short(m.opening))
	} else {
		line("sockets", "%d opened in %s, %s a second", open, short(m.opening), perSecond(open, m.opening))
	}
	sent := m.messages - m.fates[notSent]
	line("published", "%d messages of %d bytes in %s: %s a second of %g asked for", sent, b.size, short(m.elapsed), perSecond(int64(sent), m.elapsed), b.rate)
	if n := m.fates[refused] + m.fates[unconfirmed]; n > 0 {
		line("failed", "%d messages were refused, %d may have been stored or not; the first: %v",
			m.fates[refused], m.fates[unconfirmed], b.session.explain(m.first))
	}
	line("delivered", "%d of %d, %s a second: %d lost, %d repeated",
		m.owed-m.lost, m.owed, perSecond(m.owed-m.lost, m.elapsed), m.lost, m.repeated.Load())
	if n := m.broken.Load(); n > 0 {
		line("broken", "%d times a connection, or a try to have another", n)
	}
	if m.ended > 0 {
		line("ended", "%d sockets for good, the first: %v", m.ended, b.session.explain(m.gone))
	}
	line("ack", "%s", m.acks.summary())
	line("latency", "%s", m.latencies.summary())
	if m.cpu > 0 && m.elapsed > 0 {
		share := 100 * m.cpu.Seconds() / m.elapsed.Seconds() / float64(runtime.NumCPU())
		own := ""
		if share > 70 {
			own = ", so the figures are its own as much as the server's"
		}
		line("cpu", "this process used %.0f %% of %d cores%s", share, runtime.NumCPU(), own)
	}
	if m.latencies.count() > 0 {
		fmt.Fprintf(&text, "\nfrom publishing to receiving, deliveries:\n")
		m.latencies.print(&text)
	}
	_, err := w.Write(text.Bytes())
	return err
}

// perSecond has three digits that matter.
func perSecond(n int64, d time.Duration) string {
	if d <= 0 {
		return "0"
	}
	rate := float64(n) / d.Seconds()
	if rate >= 100 {
		return strconv.FormatFloat(rate, 'f', 0, 64)
	}
	return strconv.FormatFloat(rate, 'g', 3, 64)
}

// publishing says how far it is.
func (m *measure) publishing() string {
	return fmt.Sprintf("%s: %d sent, %d delivered, latency %s",
		time.Since(m.began).Round(time.Second), m.acks.count(), m.latencies.count(), m.latencies.summary())
}

// progress says on stderr how far it is, until stop is called: on a terminal in a
// line that stays where it is, else a line now and then.
func (b *bench) progress(text func() string) (stop func()) {
	f, ok := b.session.std.err.(*os.File)
	onTerminal := ok && terminal.Is(f)
	every := 5 * time.Second
	if onTerminal {
		every = 200 * time.Millisecond
	}
	done := make(chan struct{})
	var printing sync.WaitGroup
	printing.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				if onTerminal {
					fmt.Fprint(f, "\r\x1b[K")
				}
				return
			}
			if onTerminal {
				fmt.Fprintf(f, "\r%s\x1b[K", text())
			} else {
				fmt.Fprintln(b.session.std.err, text())
			}
		}
	})
	return func() {
		close(done)
		printing.Wait()
	}
}

// bitset says of numbers whether they are in it.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

// set puts i in and reports whether that is new.
func (s bitset) set(i int) bool {
	bit := uint64(1) << (i % 64)
	if s[i/64]&bit != 0 {
		return false
	}
	s[i/64] |= bit
	return true
}

// without is how many are in s and not in others.
func (s bitset) without(others bitset) (n int) {
	for i, word := range s {
		n += bits.OnesCount64(word &^ others[i])
	}
	return n
}
