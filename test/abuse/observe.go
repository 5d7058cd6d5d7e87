package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat/test/wstest"
)

const (
	// tryFor is how long a user waits for an answer.
	tryFor = 10 * time.Second
	// publishEvery and tryEvery are the intervals of the other users' requests.
	publishEvery = 20 * time.Millisecond
	tryEvery     = 200 * time.Millisecond
	sampleEvery  = 20 * time.Millisecond

	// stamp begins the content of the messages here, before the time.
	stamp = "at "
)

// figures are what the other users experienced.
type figures struct {
	length                                     time.Duration
	publish, delivery, login, handshake, ready tries
	memory                                     int64         // the most, in bytes
	spent                                      time.Duration // CPU
	lines                                      int64         // of the log
}

// tries are the latencies of successful tries, and the errors of the others.
type tries struct {
	mu      sync.Mutex // guards what follows
	took    []time.Duration
	refused map[string]int
}

func (t *tries) ok(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took = append(t.took, d)
}

func (t *tries) fail(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused == nil {
		t.refused = make(map[string]int)
	}
	t.refused[why]++
}

// failed records why a try failed. A try that began just before the end does not count.
func (t *tries) failed(ctx context.Context, begun time.Time, err error) {
	if ctx.Err() != nil && time.Since(begun) < time.Second {
		return
	}
	t.fail(reason(err))
}

// reason returns the kind of an error, without addresses.
func reason(err error) string {
	var c closed
	switch {
	case errors.As(err, &c):
		return c.Error()
	case errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, net.ErrClosed):
		return "no answer"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "cut off"
	}
	text := err.Error()
	return strings.TrimSpace(text[strings.LastIndex(text, ": ")+1:])
}

// observe acts as the other users for a while: an admin publishes on a socket, a user
// receives it on another, visitors log in and open sockets, a load balancer requests
// /readyz.
func (b *arena) observe(ctx context.Context, length time.Duration) (*figures, error) {
	ear, err := b.join(ctx, b.token("visitor0", chatUser))
	if err != nil {
		return nil, fmt.Errorf("opening a socket to listen: %w", err)
	}
	defer ear.close()
	f := &figures{length: length}
	spent, lines := b.spent(), b.lines.Load()
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	ended := context.AfterFunc(ctx, func() { ear.Conn.Close() })
	defer ended()
	client := &http.Client{Timeout: tryFor, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var running sync.WaitGroup
	running.Go(func() { b.listen(ctx, ear, &f.delivery) })
	running.Go(func() { b.publish(ctx, &f.publish) })
	running.Go(func() { f.memory = b.watchMemory(ctx) })
	repeat(ctx, &running, func(n int) { b.logIn(ctx, client, n, &f.login) })
	repeat(ctx, &running, func(n int) { b.shakeHands(ctx, n, &f.handshake) })
	repeat(ctx, &running, func(int) { b.askReady(ctx, client, &f.ready) })
	running.Wait()
	f.spent, f.lines = b.spent()-spent, b.lines.Load()-lines
	return f, nil
}

// repeat starts a try at intervals until ctx ends, whether or not the previous one has ended.
// running waits for those that are under way.
func repeat(ctx context.Context, running *sync.WaitGroup, try func(n int)) {
	running.Go(func() {
		tick := time.NewTicker(tryEvery)
		defer tick.Stop()
		for n := 0; ; n++ {
			running.Go(func() { try(n) })
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// join opens a socket and reads its welcome.
func (s *server) join(ctx context.Context, token string) (*peer, error) {
	p, status, err := s.openSocket(ctx, token, "", 0)
	if err != nil {
		return nil, err
	}
	if status != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("status %d", status)
	}
	_ = p.SetReadDeadline(time.Now().Add(tryFor))
	if _, err := p.next(); err != nil {
		p.close()
		return nil, err
	}
	_ = p.SetReadDeadline(time.Time{})
	return p, nil
}

// listen records the latency of messages to a user's socket. When the socket is closed it
// opens another.
func (b *arena) listen(ctx context.Context, ear *peer, delivery *tries) {
	for {
		begun := time.Now()
		frame, err := ear.next()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			delivery.failed(ctx, begun, err)
			if ear = b.rejoin(ctx, b.token("visitor0", chatUser)); ear == nil {
				return
			}
			defer ear.close()
			continue
		}
		// Most messages of a flood are skipped.
		if _, rest, found := bytes.Cut(frame, []byte(`"content":"`+stamp)); found {
			text, _, _ := bytes.Cut(rest, []byte(`"`))
			if sent, err := strconv.ParseInt(string(text), 10, 64); err == nil {
				delivery.ok(time.Since(time.Unix(0, sent)))
			}
		}
	}
}

// rejoin opens a socket as soon as possible. It returns nil if ctx ends before.
func (b *arena) rejoin(ctx context.Context, token string) *peer {
	for ctx.Err() == nil {
		if p, err := b.join(ctx, token); err == nil {
			return p
		}
		select {
		case <-time.After(tryEvery):
		case <-ctx.Done():
		}
	}
	return nil
}

// publish publishes at a steady rate. The latency of a message that is late because the
// previous one took long counts from when it was due.
func (b *arena) publish(ctx context.Context, published *tries) {
	mouth := b.rejoin(ctx, b.token("admin0", adminRole))
	for due := time.Now(); mouth != nil; due = due.Add(publishEvery) {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			mouth.close()
			return
		}
		answer, err := mouth.publish(stamp + strconv.FormatInt(time.Now().UnixNano(), 10))
		switch {
		case err != nil:
			published.failed(ctx, due, err)
			mouth.close()
			mouth = b.rejoin(ctx, b.token("admin0", adminRole))
			due = time.Now()
		case answer.Type == "error":
			published.fail(answer.Code)
		default:
			published.ok(time.Since(due))
		}
	}
}

// answered reads until the answer to a command.
func (p *peer) answered() (wstest.Event, error) {
	for {
		frame, err := p.next()
		if err != nil {
			return wstest.Event{}, err
		}
		if !bytes.HasPrefix(frame, []byte(`{"type":"ack"`)) && !bytes.HasPrefix(frame, []byte(`{"type":"error"`)) {
			continue
		}
		var e wstest.Event
		return e, json.Unmarshal(frame, &e)
	}
}

func (p *peer) publish(content string) (wstest.Event, error) {
	if err := p.send(`{"type":"broadcast","content":"` + content + `"}`); err != nil {
		return wstest.Event{}, err
	}
	return p.answered()
}

func (s *server) watchMemory(ctx context.Context) (most int64) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		most = max(most, s.memory())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return most
		}
	}
}

// visitor is a user outside the attack, with an address.
func visitor(n int) (name, from string) {
	n %= visitors
	return fmt.Sprint("visitor", n), fmt.Sprint("192.0.2.", n+1)
}

func (s *server) logIn(ctx context.Context, client *http.Client, n int, logins *tries) {
	name, from := visitor(n)
	form := url.Values{"username": {name}, "password": {password}}.Encode()
	s.ask(ctx, client, logins, http.MethodPost, "/login", form, from)
}

func (s *server) askReady(ctx context.Context, client *http.Client, ready *tries) {
	s.ask(ctx, client, ready, http.MethodGet, "/readyz", "", "198.51.100.1")
}

// ask records the latency of a 200, or the other answer.
func (s *server) ask(ctx context.Context, client *http.Client, t *tries, method, path, form, from string) {
	begun := time.Now()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.addr+path, strings.NewReader(form))
	if err != nil {
		t.fail(err.Error())
		return
	}
	req.Header.Set("X-Forwarded-For", from)
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := client.Do(req)
	if err != nil {
		t.failed(ctx, begun, err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		t.fail(strconv.Itoa(resp.StatusCode))
		return
	}
	t.ok(time.Since(begun))
}

// shakeHands opens a socket of a visitor and reads its welcome.
func (b *arena) shakeHands(ctx context.Context, n int, handshakes *tries) {
	name, _ := visitor(n + 1) // visitor0 listens
	begun := time.Now()
	p, err := b.join(ctx, b.token(name, chatUser))
	if err != nil {
		handshakes.failed(ctx, begun, err)
		return
	}
	handshakes.ok(time.Since(begun))
	p.close()
}
