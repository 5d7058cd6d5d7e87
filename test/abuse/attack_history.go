package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/wstest"
)

const (
	chatUser  = chat.RoleUser
	adminRole = chat.RoleAdmin

	// bigChannel has bigMessages of bigContent bytes.
	bigChannel  = "big"
	bigMessages = 1000
	bigContent  = 32 << 10

	// slowly is how many bytes a slow reader reads at once, slowlyEvery how often.
	slowly      = 1 << 10
	slowlyEvery = 50 * time.Millisecond
)

// fillHistory publishes what the attacks on the history read. Several admins publish, because
// each has a rate limit.
func fillHistory(with string) func(context.Context, *arena) error {
	return func(ctx context.Context, b *arena) error {
		content := strings.Repeat(with, bigContent)
		body, err := json.Marshal(map[string]string{"channel": bigChannel, "content": content})
		if err != nil {
			return err
		}
		// JSON may escape characters that the server does not.
		text := strings.ReplaceAll(string(body), `\u003c`, "<")
		p, err := b.dial(ctx, 0)
		if err != nil {
			return err
		}
		defer p.close()
		for n := 0; n < b.less(bigMessages); {
			admin := b.token(fmt.Sprint("admin", 1+n%admins), adminRole)
			if _, err := io.WriteString(p, request(http.MethodPost, "/messages", admin, "", text)); err != nil {
				return err
			}
			resp, err := http.ReadResponse(p.in, nil)
			if err != nil {
				return err
			}
			var m wstest.Event
			err = json.NewDecoder(resp.Body).Decode(&m)
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			switch {
			case resp.StatusCode == http.StatusCreated && err == nil:
				if n == 0 {
					b.first = m.ID
				}
				n++
			case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
				if err := pause(ctx, time.Second); err != nil {
					return err
				}
			default:
				return fmt.Errorf("publishing: status %d, %v", resp.StatusCode, err)
			}
		}
		return nil
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// together runs this number of an attack's connections until ctx ends. One that fails starts
// again.
func together(ctx context.Context, n int, one func(n int) error) {
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := one(i); err != nil && ctx.Err() == nil {
					_ = pause(ctx, 10*time.Millisecond) // then ctx has ended
				}
			}
		})
	}
	running.Wait()
}

// asking sends a request repeatedly on each connection, reads the answers and counts their
// statuses.
func asking(ctx context.Context, b *arena, connections int, request func(connection, n int) string) {
	together(ctx, connections, func(connection int) error {
		p, err := b.dial(ctx, 0)
		if err != nil {
			b.tally.count("not connected", 1)
			return err
		}
		defer p.close()
		for n := 0; ; n++ {
			status, size, err := p.do(request(connection, n))
			if status != 0 {
				b.tally.count(strconv.Itoa(status), 1)
				b.tally.count("KiB read", size>>10)
			}
			if err != nil {
				if ctx.Err() == nil {
					b.tally.count(reason(err), 1)
				}
				return err
			}
		}
	})
}

const bigPage = "/messages?channel=" + bigChannel + "&limit=1000"

func readPages(connections int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		page := request(http.MethodGet, bigPage, b.token("mallory0", chatUser), "", "")
		asking(ctx, b, b.less(connections), func(int, int) string { return page })
	}
}

// leavePages requests pages and reads only the first bytes of each.
func leavePages(connections int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		page := request(http.MethodGet, bigPage, b.token("mallory0", chatUser), "", "")
		together(ctx, b.less(connections), func(int) error {
			p, err := b.dial(ctx, slowly)
			if err != nil {
				b.tally.count("not connected", 1)
				return err
			}
			defer p.close()
			if _, err := io.WriteString(p, page); err != nil {
				return err
			}
			line, err := p.in.ReadString('\n')
			if words := strings.Fields(line); err == nil && len(words) > 1 {
				b.tally.count(words[1], 1)
				if words[1] != "200" {
					return pause(ctx, 100*time.Millisecond)
				}
			}
			<-ctx.Done()
			return nil
		})
	}
}

// resumeSlowly opens sockets that missed all of bigChannel.
func resumeSlowly(sockets int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		slowSockets(ctx, b, sockets, "channel="+bigChannel+"&since="+b.first, func(*peer) error { return nil })
	}
}

// joinSlowly opens sockets that join and leave bigChannel repeatedly.
func joinSlowly(sockets int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		slowSockets(ctx, b, sockets, "", func(p *peer) error {
			for range 40 { // the burst
				if err := p.send(`{"type":"join","channel":"` + bigChannel + `","since":"` + b.first + `"}`); err != nil {
					return err
				}
				if err := p.send(`{"type":"leave","channel":"` + bigChannel + `"}`); err != nil {
					return err
				}
				b.tally.count("joins", 1)
			}
			return nil
		})
	}
}

// slowSockets runs sockets of several users that request much data and read a little now and
// then.
func slowSockets(ctx context.Context, b *arena, sockets int, query string, ask func(*peer) error) {
	together(ctx, b.less(sockets), func(n int) error {
		token := b.token(fmt.Sprint("mallory", n%hostile), chatUser)
		p, status, err := b.openSocket(ctx, token, query, slowly)
		if err != nil {
			b.tally.count("not connected", 1)
			return err
		}
		b.tally.count(strconv.Itoa(status), 1)
		if status != http.StatusSwitchingProtocols {
			return fmt.Errorf("status %d", status)
		}
		defer p.close()
		if err := ask(p); err != nil {
			return err
		}
		some := make([]byte, slowly)
		for {
			if _, err := p.in.Read(some); err != nil {
				if ctx.Err() == nil {
					b.tally.count("cut off", 1)
				}
				return err
			}
			if err := pause(ctx, slowlyEvery); err != nil {
				return err
			}
		}
	})
}
