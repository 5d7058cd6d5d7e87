package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// settle is how long docs/scaling.md waits between a node that is ready again and the
// next one.
const settle = 5 * time.Second

// TestARollingRestartFailsNoRequest does what docs/scaling.md says, under traffic:
// each request is answered, whichever node is away, and none is carried out twice.
func TestARollingRestartFailsNoRequest(t *testing.T) {
	t.Parallel()
	for _, kind := range proxies {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			redis := chatdtest.StartRedis(t)
			addrs := []string{chatdtest.FreeAddr(t), chatdtest.FreeAddr(t)}
			start := func(i int) *chatdtest.Process {
				return program.Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()}, "-plaintext", "-addr", addrs[i],
					"-trusted-proxies", "127.0.0.1", "-drain", "5s", "-drain-delay", "3s")
			}
			nodes := []*chatdtest.Process{start(0), start(1)}
			s := newSetup(t, addrs...)
			if kind.name == "nginx" {
				s.edits = []string{"error.log crit;", "error.log error;"} // for what it says of a failure
			}
			p := kind.start(t, s)
			p.client = from(t, "127.0.0.1", s.roots)
			wstest.Eventually(t, "the proxy to find a node", func() bool {
				return post(t, p.client, p.url+"/login", "", `{}`, nil).StatusCode < 500
			})
			load := newTraffic(t, p, s, nodes[0].Token("admin"))
			load.wait(5)
			for i, node := range nodes {
				node.Signal(syscall.SIGTERM)
				// While it drains, /readyz is red, and the node still serves.
				wstest.Eventually(t, "readyz to be red", func() bool {
					status, body := node.Request(http.MethodGet, "/readyz", "", "")
					return status == http.StatusServiceUnavailable && strings.Contains(body, "draining")
				})
				if status, body := node.Request(http.MethodGet, "/messages?limit=1", load.token, ""); status != http.StatusOK {
					t.Errorf("a node that leaves answers %d %s", status, body)
				}
				if code := node.ExitCode(); code != 0 {
					t.Errorf("exit code %d\n%s", code, node.Logged())
				}
				load.wait(5)
				nodes[i] = start(i)
				wstest.Eventually(t, "readyz", func() bool {
					status, _ := nodes[i].Request(http.MethodGet, "/readyz", "", "")
					return status == http.StatusOK
				})
				<-time.After(settle)
			}
			load.wait(5)
			load.end()
			load.check(t, nodes[0])
			if t.Failed() {
				t.Logf("the proxy says\n%s", p.errors())
			}
		})
	}
}

// traffic is the constant requests of clients through a proxy.
type traffic struct {
	p      *proxy
	token  string // an admin's
	signer *chat.HS256
	stop   context.CancelFunc
	doing  sync.WaitGroup

	mu     sync.Mutex
	done   map[string]int // by kind
	failed []string
	posted []string // contents that were acknowledged
}

// newTraffic begins with everything at once, each kind from an address of its own.
func newTraffic(t *testing.T, p *proxy, s setup, token string) *traffic {
	ctx, stop := context.WithCancel(t.Context())
	signer, err := chat.NewHS256([]byte(chatdtest.Secret))
	if err != nil {
		t.Fatal(err)
	}
	l := &traffic{p: p, token: token, signer: signer, stop: stop, done: make(map[string]int)}
	t.Cleanup(l.end)
	login := url.Values{"username": {"user"}, "password": {chatdtest.Passwords["user"]}}.Encode()
	kinds := map[string]struct {
		every time.Duration
		do    func(client *http.Client, i int) error
	}{
		"login": {500 * time.Millisecond, func(client *http.Client, _ int) error {
			return l.request(client, http.MethodPost, "/login", login, http.StatusOK)
		}},
		"publish": {20 * time.Millisecond, func(client *http.Client, i int) error {
			content := fmt.Sprint("message ", i)
			err := l.request(client, http.MethodPost, "/messages", `{"content":"`+content+`"}`, http.StatusCreated)
			if err == nil {
				l.mu.Lock()
				l.posted = append(l.posted, content)
				l.mu.Unlock()
			}
			return err
		}},
		"history": {20 * time.Millisecond, func(client *http.Client, _ int) error {
			return l.request(client, http.MethodGet, "/messages?limit=1", "", http.StatusOK)
		}},
		"socket": {50 * time.Millisecond, func(client *http.Client, i int) error { return l.socket(client, i) }},
	}
	n := 0
	for name, kind := range kinds {
		n++
		room := make(chan struct{}, 3) // on a machine that is too slow for all of it
		client := from(t, fmt.Sprintf("127.0.0.%d", 10+n), s.roots)
		l.doing.Go(func() {
			tick := time.NewTicker(kind.every)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				select {
				case room <- struct{}{}:
				case <-ctx.Done():
					return
				}
				l.doing.Go(func() {
					defer func() { <-room }()
					began := time.Now()
					err := kind.do(client, i)
					l.mu.Lock()
					defer l.mu.Unlock()
					if l.done[name]++; err != nil {
						l.failed = append(l.failed, fmt.Sprintf("%s %s %v", began.Format("15:04:05.000"), name, err))
					}
				})
			}
		})
	}
	return l
}

func (l *traffic) request(client *http.Client, method, path, body string, want int) error {
	req, err := http.NewRequest(method, l.p.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if path == "/login" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		req.Header.Set("Authorization", "Bearer "+l.token)
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("status %d: %.100s", resp.StatusCode, text)
	}
	return err
}

// socket opens a user's only socket, waits for its welcome and closes it.
func (l *traffic) socket(client *http.Client, i int) error {
	token, err := l.signer.Issue(chat.User{Name: fmt.Sprint("user-", i), Role: chat.RoleUser})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), chatdtest.Patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, l.p.url+"/ws/chat", &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{"chat.v1"},
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token.AccessToken}},
	})
	if err != nil {
		if resp != nil {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return err
	}
	defer conn.CloseNow()
	if _, _, err := conn.Read(ctx); err != nil && websocket.CloseStatus(err) != websocket.StatusGoingAway {
		return fmt.Errorf("no welcome: %w", err)
	}
	return nil
}

// wait waits until each kind was done n more times.
func (l *traffic) wait(n int) {
	l.mu.Lock()
	goal := make(map[string]int)
	for _, name := range []string{"login", "publish", "history", "socket"} {
		goal[name] = l.done[name] + n
	}
	l.mu.Unlock()
	overdue := time.After(chatdtest.Patience)
	for reached := false; !reached; {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-overdue:
			return // and check says what failed
		}
		l.mu.Lock()
		reached = true
		for name, n := range goal {
			reached = reached && l.done[name] >= n
		}
		l.mu.Unlock()
	}
}

func (l *traffic) end() {
	l.stop()
	l.doing.Wait()
}

// check checks the results of all kinds of traffic.
func (l *traffic) check(t *testing.T, node *chatdtest.Process) {
	t.Helper()
	t.Logf("done: %v", l.done)
	if len(l.failed) > 0 {
		t.Errorf("%d failed:\n%s", len(l.failed), strings.Join(l.failed, "\n"))
	}
	stored := make(map[string]int)
	for after, more := "", true; more; {
		_, body := node.Request(http.MethodGet, "/messages?limit=1000"+after, l.token, "")
		var page struct {
			Messages []struct{ ID, Content string }
			More     bool
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Messages) == 0 {
			t.Fatalf("%v in %s", err, body)
		}
		for _, m := range page.Messages {
			stored[m.Content]++
		}
		after, more = "&after="+page.Messages[len(page.Messages)-1].ID, page.More
	}
	for content, n := range stored {
		if n > 1 {
			t.Errorf("%s is stored %d times", content, n)
		}
	}
	if len(stored) < 1000 { // else the oldest are no longer kept
		for _, content := range l.posted {
			if stored[content] == 0 {
				t.Errorf("%s was acknowledged, and is not there", content)
			}
		}
	}
}
