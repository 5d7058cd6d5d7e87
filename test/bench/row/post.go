package row

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/reto10/chat/test/bench/load"
)

// post measures POST /messages by an admin over keep-alive connections, as fast as the server
// answers. One socket receives what is published.
func (l *Lab) post(ctx context.Context, kind string) (Values, error) {
	const connections = 64
	window := pick(l, 2*time.Second, 200*time.Millisecond)
	v := Values{}
	request, err := l.postRequest()
	if err != nil {
		return v, err
	}
	err = l.with(ctx, config{kind: kind}, crowd{}, func(t *trial) (err error) {
		if err := t.connect(ctx, 1); err != nil {
			return err
		}
		clients, err := load.NewRequests(ctx, t.Sockets, request, http.StatusCreated, connections)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, clients.Close()) }()
		if _, _, err := t.posts(ctx, clients, window/10); err != nil { // fills pools and caches
			return err
		}
		before, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		answered, took, err := t.posts(ctx, clients, window)
		if err != nil {
			return err
		}
		after, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		v["post.rate"] = float64(answered) / took.Seconds()
		v["post.cpu"] = micros(after.CPU-before.CPU) / float64(answered)
		return nil
	})
	return v, err
}

// posts sends requests for a while and awaits what they published, if the server publishes.
func (t *trial) posts(ctx context.Context, clients *load.Requests, window time.Duration) (int, time.Duration, error) {
	const endless = 1 << 40
	received := t.Counted()
	t.Expect(received + endless) // so that the socket's reader rests
	answered, took, err := clients.Run(ctx, window)
	if err != nil || t.floor {
		return answered, took, err
	}
	return answered, took, t.Await(ctx, received+int64(answered), patience)
}

// postRequest is a request that publishes a message to everyone's channel.
func (l *Lab) postRequest() ([]byte, error) {
	const admin = 0
	token, err := l.token(admin)
	if err != nil {
		return nil, err
	}
	body := fmt.Sprintf(`{"content":%q}`, strings.Repeat("x", contentSize))
	return fmt.Appendf(nil, "POST /messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body), nil
}
