package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat/internal/terminal"
)

// verdict returns an error if a message was lost, repeated or not stored.
func (m *measure) verdict() error {
	var wrong []string
	for _, w := range []struct {
		n    int64
		what string
	}{
		{m.lost, "lost"},
		{m.repeated.Load(), "repeated"},
		{int64(m.fates[refused]), "rejected"},
		{int64(m.fates[unconfirmed]), "unconfirmed"},
	} {
		if w.n > 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s", w.n, w.what))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New("the run failed: " + strings.Join(wrong, ", "))
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
		line("failed", "%d messages were rejected, %d may have been stored; the first: %v",
			m.fates[refused], m.fates[unconfirmed], b.session.explain(m.first))
	}
	line("delivered", "%d of %d, %s a second: %d lost, %d repeated",
		m.owed-m.lost, m.owed, perSecond(m.owed-m.lost, m.delivering), m.lost, m.repeated.Load())
	if n := m.broken.Load(); n > 0 {
		line("broken", "%d times: lost connections and failed reconnects", n)
	}
	if m.ended > 0 {
		line("ended", "%d sockets, the first: %v", m.ended, b.session.explain(m.gone))
	}
	line("ack", "%s", m.acks.summary())
	line("latency", "%s", m.latencies.summary())
	if m.cpu > 0 && m.elapsed > 0 {
		share := 100 * m.cpu.Seconds() / m.elapsed.Seconds() / float64(runtime.NumCPU())
		own := ""
		if share > 70 {
			own = ", so it limits the figures as much as the server does"
		}
		line("cpu", "this process used %.0f %% of %d cores%s", share, runtime.NumCPU(), own)
	}
	_, err := w.Write(text.Bytes())
	return err
}

// perSecond returns a rate with three significant digits.
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

// publishing returns the progress of publishing.
func (m *measure) publishing() string {
	return fmt.Sprintf("%s: %d sent, %d delivered, latency %s",
		time.Since(m.began).Round(time.Second), m.acks.count(), m.latencies.count(), m.latencies.summary())
}

// progress prints the progress on stderr until stop is called: in one changing line of a
// terminal, otherwise in a new line every five seconds.
func (b *bench) progress(text func() string) (stop func()) {
	stderr, ok := b.session.std.err.(screen)
	onTerminal := ok && terminal.Is(stderr.file)
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
					fmt.Fprint(stderr.file, "\r\x1b[K")
				}
				return
			}
			if onTerminal {
				fmt.Fprintf(stderr.file, "\r%s\x1b[K", text())
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
