package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// mostHeld bounds the sockets that are open at once: each is two open files on this machine.
	mostHeld = 8000
)

// openSockets runs workers that open sockets of one user. The sockets read nothing and stay
// open until there are very many.
func openSockets(workers int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		token := b.token("mallory0", chatUser)
		var mu sync.Mutex // guards held
		var held []*peer  // first come first
		hold := func(p *peer) (over *peer) {
			mu.Lock()
			defer mu.Unlock()
			held = append(held, p)
			if len(held) > mostHeld {
				over, held = held[0], held[1:]
			}
			return over
		}
		together(ctx, b.less(workers), func(int) error {
			p, status, err := b.openSocket(ctx, token, "", slowly)
			if err != nil {
				if ctx.Err() == nil {
					b.tally.count(reason(err), 1)
				}
				return err
			}
			b.tally.count(strconv.Itoa(status), 1)
			if status == http.StatusSwitchingProtocols {
				if over := hold(p); over != nil {
					over.close()
				}
			}
			return nil
		})
		for _, p := range held {
			p.close()
		}
	}
}

// stall opens a socket in a channel, reads nothing while messages are published there, and
// measures how long the user is still listed as connected.
func stall(ctx context.Context, b *arena) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const channel = "stall"
	admin := b.token("admin1", adminRole)
	p, status, err := b.openSocket(ctx, b.token("mallory0", chatUser), "channel="+channel, slowly)
	if err != nil || status != http.StatusSwitchingProtocols {
		b.tally.note("not connected: status %d, %v", status, err)
		return
	}
	defer p.close()
	begun := time.Now()
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		flood(ctx, b, admin, channel)
	}()
	gone := func() bool {
		q, err := b.dial(ctx, 0)
		if err != nil {
			return false
		}
		defer q.close()
		list, err := q.get(request(http.MethodGet, "/users/connected", admin, "", ""))
		return err == nil && !bytes.Contains(list, []byte(`"mallory0"`))
	}
	for !gone() {
		if pause(ctx, 50*time.Millisecond) != nil {
			b.tally.note("the socket was still listed after %.1f s", time.Since(begun).Seconds())
			<-flooded
			return
		}
	}
	b.tally.note("the socket was gone after %.1f s", time.Since(begun).Seconds())
	cancel()
	<-flooded
}

// flood publishes 4 MiB in a channel, four times a socket's backlog, and then a little now
// and then.
func flood(ctx context.Context, b *arena, admin, channel string) {
	body := `{"channel":"` + channel + `","content":"` + strings.Repeat("x", 16<<10) + `"}`
	post := request(http.MethodPost, "/messages", admin, "", body)
	p, err := b.dial(ctx, 0)
	if err != nil {
		b.tally.count("not connected", 1)
		return
	}
	defer p.close()
	for n := 0; ctx.Err() == nil; n++ {
		status, _, err := p.do(post)
		if status != 0 {
			b.tally.count(fmt.Sprint("published, ", status), 1)
		}
		if err != nil {
			return
		}
		if n > 256 {
			_ = pause(ctx, time.Second) // then ctx has ended
		}
	}
}

// get is do; it returns the body of a 200.
func (p *peer) get(request string) ([]byte, error) {
	if _, err := p.Write([]byte(request)); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return body.Bytes(), nil
}

// burst is how many commands a socket may send at once.
const burst = 40

// publishReconnecting runs workers of one user that publish a socket's burst and reconnect.
func publishReconnecting(workers int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		token := b.token("mallory0", chatUser)
		command := `{"type":"broadcast","content":"` + strings.Repeat("spam ", 10) + `"}`
		together(ctx, b.less(workers), func(int) error {
			p, status, err := b.openSocket(ctx, token, "", 0)
			if err != nil {
				b.tally.count("not connected", 1)
				return err
			}
			b.tally.count(fmt.Sprint("sockets, ", status), 1)
			if status != http.StatusSwitchingProtocols {
				return fmt.Errorf("status %d", status)
			}
			defer p.close()
			for range burst {
				if err := p.send(command); err != nil {
					return err
				}
			}
			refused := 0
			for range burst {
				answer, err := p.answered()
				var code closed
				switch {
				case errors.As(err, &code):
					b.tally.count(code.Error(), 1)
					return err
				case err != nil:
					return err
				case answer.Type == "ack":
					b.tally.count("published", 1)
				default:
					refused++
					b.tally.count(answer.Code, 1)
				}
			}
			if refused == burst {
				return errors.New("all refused")
			}
			return nil
		})
	}
}

func publishByPost(connections int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		body := `{"content":"` + strings.Repeat("spam ", 10) + `"}`
		post := request(http.MethodPost, "/messages", b.token("mallory0", chatUser), "", body)
		asking(ctx, b, b.less(connections), func(int, int) string { return post })
	}
}
