// Package row measures: each row starts a server in its own process, loads it, and reads the
// cost.
package row

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/bench/load"
	"github.com/reto10/chat/test/bench/peer"
)

const (
	// contentSize is the size of a published message.
	contentSize = 128
	// stillness is how long nothing must come until a server is at rest. This library batches
	// joins for up to two seconds.
	stillness     = 700 * time.Millisecond
	stillnessOurs = 2200 * time.Millisecond
	// patience bounds the wait for the last delivery.
	patience = 60 * time.Second
)

// Values are what one run of a row measured, by the measure's name.
type Values map[string]float64

// Lab is where rows are run.
type Lab struct {
	Programs   Programs      // the servers'
	Secret     []byte        // of the tokens
	ServerCore int           // the core of servers; -1: any
	Quick      bool          // smaller and shorter
	Rest       time.Duration // how long clients do not look while messages are expected
	Soak       time.Duration
	Log        func(format string, args ...any)

	auth   *chat.HS256
	mu     sync.Mutex
	tokens map[int]string
}

// pick returns full, or quick with -quick.
func pick[T any](l *Lab, full, quick T) T {
	if l.Quick {
		return quick
	}
	return full
}

// token is a user's, issued once.
func (l *Lab) token(user int) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.tokens[user]; t != "" {
		return t, nil
	}
	if l.auth == nil {
		var err error
		if l.auth, err = chat.NewHS256(l.Secret, chat.WithTokenTTL(12*time.Hour)); err != nil {
			return "", err
		}
		l.tokens = make(map[int]string)
	}
	t, err := l.auth.Issue(chat.User{Name: fmt.Sprintf("user%d", user), Role: role(user)})
	if err != nil {
		return "", err
	}
	l.tokens[user] = t.AccessToken
	return t.AccessToken, nil
}

// role of a user: the first one is an admin.
func role(user int) string {
	if user == 0 {
		return chat.RoleAdmin
	}
	return chat.RoleUser
}

// crowd is the set of clients of a row.
type crowd struct {
	channels   func(user int) []string // beside everyone's; nil: two
	users      int                     // sockets share this many users; 0: each its own
	readBuffer int
	prompt     bool // how long deliveries take matters
	inspect    func(*load.Socket, []byte)
	count      func(*load.Socket, []byte) int // see load.Target
	resume     func(user int) string          // a result of peer.Dialect.Resume, nil: none
}

// twoChannels returns the channels of a user in rows that need no special ones.
func twoChannels(user int) []string {
	return []string{fmt.Sprintf("team-%d", user%100), fmt.Sprintf("site-%d", user%10)}
}

// trial is a server and its clients.
type trial struct {
	*server
	*load.Fleet
	command   string
	stillness time.Duration
	floor     bool // the server is none, see server/write
}

// open starts a server without clients.
func (l *Lab) open(ctx context.Context, c config, who crowd) (*trial, error) {
	s, err := l.start(ctx, c)
	if err != nil {
		return nil, err
	}
	if who.channels == nil {
		who.channels = twoChannels
	}
	if who.resume == nil {
		who.resume = func(int) string { return "" }
	}
	user := func(socket int) int {
		if who.users > 0 {
			return socket % who.users
		}
		return socket
	}
	rest := l.Rest
	if who.prompt {
		rest = 0
	}
	d := peer.NewDialect(c.kind, l.token)
	fleet, err := load.NewFleet(load.Target{
		Address:    s.Sockets,
		TLS:        c.tls,
		ReadBuffer: who.readBuffer,
		Request: func(socket int) (string, error) {
			return d.Request(user(socket), who.channels(user(socket)), who.resume(user(socket)))
		},
		Hello: func(socket int) string {
			return d.Hello(who.channels(user(socket)), who.resume(user(socket)))
		},
		Ping:    d.Ping(),
		Rest:    rest,
		Inspect: who.inspect,
		Count:   who.count,
	})
	if err != nil {
		s.stop()
		return nil, err
	}
	fleet.CountFrom(contentSize)
	t := &trial{s, fleet, d.Command(), stillness, c.kind == "write"}
	if c.kind == "chat" {
		t.stillness = stillnessOurs
	}
	return t, nil
}

func (t *trial) close() error {
	err := t.Fleet.Close()
	t.stop()
	return err
}

// connect dials n more clients and returns when the server is at rest.
func (t *trial) connect(ctx context.Context, n int) error {
	want := t.Open() + n
	if err := t.Dial(ctx, n); err != nil {
		return err
	}
	if err := t.Quiet(ctx, t.stillness); err != nil {
		return err
	}
	u, err := t.usage(ctx, false)
	if err != nil {
		return err
	}
	if u.Sockets != want || t.Open() != want {
		return fmt.Errorf("%d of %d sockets are connected, the server counts %d", t.Open(), want, u.Sockets)
	}
	return nil
}

// deliver publishes a burst and waits until every socket received it.
func (t *trial) deliver(ctx context.Context, burst int) (deliveries int64, err error) {
	deliveries = int64(burst * t.Open())
	return deliveries, t.order(ctx, order{n: burst, size: contentSize}, deliveries)
}

// order publishes and waits for so many deliveries.
func (t *trial) order(ctx context.Context, o order, deliveries int64) error {
	goal := t.Counted() + deliveries
	t.Expect(goal)
	if err := t.publish(ctx, o); err != nil {
		return err
	}
	return t.Await(ctx, goal, patience)
}

// perDelivery publishes bursts, one after the other, for about window, and returns the
// server's CPU per delivery.
func (t *trial) perDelivery(ctx context.Context, burst int, window time.Duration) (time.Duration, float64, error) {
	return t.repeat(ctx, window, func() (int64, error) { return t.deliver(ctx, burst) })
}

// repeat repeats a delivery, which returns how many there were, for about window, and returns
// the server's CPU in total and per delivery.
func (t *trial) repeat(ctx context.Context, window time.Duration, deliver func() (int64, error)) (time.Duration, float64, error) {
	if _, err := deliver(); err != nil { // a first one fills pools and caches
		return 0, 0, err
	}
	before, err := t.usage(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	var total int64
	for begin, rounds := time.Now(), 0; rounds < 3 || time.Since(begin) < window; rounds++ {
		n, err := deliver()
		if err != nil {
			return 0, 0, err
		}
		total += n
	}
	after, err := t.usage(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	cpu := after.CPU - before.CPU
	return cpu, micros(cpu) / float64(total), nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func kib(bytes int64) float64 { return float64(bytes) / 1024 }

// with opens a trial, runs fn on it and closes it.
func (l *Lab) with(ctx context.Context, c config, who crowd, fn func(*trial) error) error {
	t, err := l.open(ctx, c, who)
	if err != nil {
		return err
	}
	return errors.Join(fn(t), t.close())
}
