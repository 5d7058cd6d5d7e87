package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

const (
	// startWithin bounds the start of a process.
	startWithin = 30 * time.Second
	// silence is the time without a message after which no more is expected.
	silence = 3 * time.Second
	// warmUp is published before anything is measured.
	warmUp = 1
)

// result is one turn of a kind. Times are in milliseconds, CPU in microseconds.
type result struct {
	p50, p99   float64
	throughput float64 // publishes a second that Redis had taken
	delivered  float64 // how much of these came, in percent
	trips      float64 // scripts and publishes that came from the nodes, a message
	commands   float64 // those that scripts gave included, a message
	cpu        float64 // of Redis, a message
}

// measure starts a Redis and two nodes. The first publishes and the second delivers.
func measure(ctx context.Context, kind string, rate, publishers, seconds int) (r result, err error) {
	store, err := startRedis(ctx)
	if err != nil {
		return r, err
	}
	defer store.stop()
	first, err := startNode(ctx, kind, store.address)
	if err != nil {
		return r, err
	}
	defer first.stop()
	second, err := startNode(ctx, kind, store.address)
	if err != nil {
		return r, err
	}
	defer second.stop()
	listener, err := listen(ctx, kind, second.address)
	if err != nil {
		return r, err
	}
	defer listener.close()

	if _, err := first.publish(ctx, 1, rate, warmUp); err != nil {
		return r, err
	}
	_ = listener.latencies(0) // whatever the warm-up took
	paced, err := first.publish(ctx, 1, rate, seconds)
	if err != nil {
		return r, err
	}
	latencies := listener.latencies(paced.Messages)
	if len(latencies) < paced.Messages {
		return r, fmt.Errorf("%d of %d messages came", len(latencies), paced.Messages)
	}
	slices.Sort(latencies)
	r.p50 = ms(latencies[len(latencies)/2])
	r.p99 = ms(latencies[len(latencies)*99/100])

	before, err := store.usage(ctx)
	if err != nil {
		return r, err
	}
	burst, err := first.publish(ctx, publishers, 0, seconds)
	if err != nil {
		return r, err
	}
	came := len(listener.latencies(burst.Messages))
	after, err := store.usage(ctx)
	if err != nil {
		return r, err
	}
	n := float64(burst.Messages)
	r.throughput = n / burst.Seconds
	r.delivered = 100 * float64(came) / n
	r.trips = (after.trips - before.trips) / n
	r.commands = (after.commands - before.commands) / n
	r.cpu = (after.cpu - before.cpu) * 1e6 / n
	return r, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// child is a process that this one started.
type child struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	address string
}

// startNode starts this program as a node of a kind.
func startNode(ctx context.Context, kind, redisAddress string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-serve", kind, "-redis", redisAddress)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("a node of kind %s does not start: %w", kind, err)
	}
	c.address = strings.TrimSpace(line)
	return c, nil
}

func (c *child) stop() {
	if c.stdin != nil {
		c.stdin.Close()
	} else {
		_ = c.cmd.Process.Signal(os.Interrupt)
	}
	_ = c.cmd.Wait()
}

func (c *child) publish(ctx context.Context, publishers, rate, seconds int) (p published, err error) {
	url := fmt.Sprintf("http://%s/publish?publishers=%d&rate=%d&seconds=%d", c.address, publishers, rate, seconds)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return p, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return p, err
	}
	if resp.StatusCode != http.StatusOK {
		return p, fmt.Errorf("publishing: %s", b)
	}
	return p, json.Unmarshal(b, &p)
}

// store is a Redis that persists nothing.
type store struct {
	*child
	client *redis.Client
	dir    string
}

func startRedis(ctx context.Context) (*store, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	l.Close()
	dir, err := os.MkdirTemp("", "versus")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "redis-server",
		"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s := &store{
		child:  &child{cmd: cmd, address: address},
		client: redis.NewClient(&redis.Options{Addr: address}),
		dir:    dir,
	}
	deadline := time.Now().Add(startWithin)
	for {
		err := s.client.Ping(ctx).Err()
		if err == nil {
			return s, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			s.stop()
			return nil, err
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (s *store) stop() {
	_ = s.client.Close()
	s.child.stop()
	_ = os.RemoveAll(s.dir)
}

// usage is what Redis has used so far.
type usage struct {
	trips, commands float64
	cpu             float64 // seconds
}

func (s *store) usage(ctx context.Context) (u usage, err error) {
	info, err := s.client.Info(ctx, "commandstats", "cpu").Result()
	if err != nil {
		return u, err
	}
	var scripts, publishes float64
	for line := range strings.Lines(info) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return u, err
			}
			u.cpu += seconds
			continue
		}
		command, ok := strings.CutPrefix(name, "cmdstat_")
		if !ok || command == "info" {
			continue
		}
		var calls float64
		if _, err := fmt.Sscanf(value, "calls=%f", &calls); err != nil {
			return u, err
		}
		u.commands += calls
		switch command {
		case "evalsha", "eval":
			scripts += calls
		case "publish":
			publishes += calls
		}
	}
	// A script publishes once. Further publishes are not caused by messages.
	u.trips = scripts + max(0, publishes-scripts)
	return u, nil
}

// listener is a socket of a node that records the latency of each message.
type listener struct {
	conn *websocket.Conn

	ended chan struct{} // closed when nothing more is read

	mu   sync.Mutex      // guards came
	came []time.Duration // how long each message took
}

func listen(ctx context.Context, kind, address string) (*listener, error) {
	url, header := "ws://"+address+"/", http.Header{}
	if kind == kindChat {
		url += "ws/chat?channel=" + channel
		header.Set("Authorization", "Bearer listener")
	}
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, url, header)
	if resp != nil {
		_ = resp.Body.Close() // of what is in memory
	}
	if err != nil {
		return nil, err
	}
	if kind != kindChat {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"id":1,"connect":{}}`)); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	if _, _, err := conn.ReadMessage(); err != nil { // the welcome, or what answers the connect
		return nil, errors.Join(err, conn.Close())
	}
	l := &listener{conn: conn, ended: make(chan struct{})}
	go l.read()
	return l, nil
}

var contentIs = []byte(`"content":"`)

func (l *listener) read() {
	defer close(l.ended)
	for {
		_, frame, err := l.conn.ReadMessage()
		now := time.Now().UnixNano()
		if err != nil {
			return
		}
		if string(frame) == "{}" { // centrifuge's ping
			_ = l.conn.WriteMessage(websocket.TextMessage, frame)
			continue
		}
		l.mu.Lock()
		for {
			_, rest, found := bytes.Cut(frame, contentIs) // centrifuge joins messages, a line each
			if !found {
				break
			}
			stamp, _, _ := bytes.Cut(rest, []byte("."))
			if at, err := strconv.ParseInt(string(stamp), 10, 64); err == nil {
				l.came = append(l.came, time.Duration(now-at))
			}
			frame = rest
		}
		l.mu.Unlock()
	}
}

// latencies returns the latencies, once n messages have come or no more come, and resets
// them.
func (l *listener) latencies(n int) []time.Duration {
	for before, since := 0, time.Now(); ; {
		l.mu.Lock()
		came := len(l.came)
		l.mu.Unlock()
		if came > before {
			before, since = came, time.Now()
		}
		if came >= n || time.Since(since) > silence {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if n == 0 {
		<-time.After(500 * time.Millisecond) // what is on its way
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	came := l.came
	l.came = nil
	return came
}

func (l *listener) close() {
	_ = l.conn.Close()
	<-l.ended
}
