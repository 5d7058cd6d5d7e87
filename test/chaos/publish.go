package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat"
)

const (
	// answerWithin is how long a publish may take to succeed or fail, even if a backend of the
	// node is dead.
	answerWithin = 15 * time.Second
	// abandonAfter is when a publisher stops waiting.
	abandonAfter = 60 * time.Second
	// breather is the pause of a publisher after a refusal.
	breather = 100 * time.Millisecond
)

// speech makes the contents of one publisher, never the same twice.
type speech struct {
	name    string
	rng     *rand.Rand
	cluster *cluster
	count   int
}

// next returns a channel and a content.
func (s *speech) next() (channel, content string) {
	s.count++
	content = fmt.Sprintf("%s-%d %s", s.name, s.count, strings.Repeat("·", s.rng.IntN(100)))
	switch draw := s.rng.IntN(10); {
	case draw == 0:
		return "", content
	case draw < 7:
		return s.cluster.groups[s.rng.IntN(len(s.cluster.groups))], content
	default:
		return chat.UserChannel(s.cluster.users[s.rng.IntN(len(s.cluster.users))]), content
	}
}

// postForever publishes over HTTP until ctx ends, one message after the other, at most one
// per interval.
func postForever(ctx context.Context, s *speech, every time.Duration) {
	c := s.cluster
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		channel, content := s.next()
		n := c.nodes[s.rng.IntN(len(c.nodes))]
		c.ledger.publishing(channel, content)
		asked := time.Now()
		// The request does not end with ctx, because its result counts.
		id, status, err := c.post(context.WithoutCancel(ctx), n, channel, content)
		took := time.Since(asked)
		c.report.published(took, err == nil && id != "")
		if took > answerWithin && !n.disturbed() {
			c.report.find(findPublish, "%s took %v to answer: %d %v", n.name, took.Round(time.Millisecond), status, err)
		}
		switch {
		case err == nil && id != "":
			c.ledger.acked(content, id)
			continue
		case err == nil && status != http.StatusServiceUnavailable:
			c.report.find(findProtocol, "%s answered a publish with %d", n.name, status)
		}
		wait := time.NewTimer(breather)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// post publishes over HTTP. id is "" if the node refused.
func (c *cluster) post(ctx context.Context, n *node, channel, content string) (id string, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, abandonAfter)
	defer cancel()
	body, err := json.Marshal(struct {
		Content string `json:"content"`
		Channel string `json:"channel,omitempty"`
	}{content, channel})
	if err != nil {
		return "", 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.address+"/messages", bytes.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	// net/http retries a request whose body it can read again when the connection breaks. Then
	// one publish would be two.
	req.GetBody = nil
	req.Header.Set("Content-Type", "application/json")
	var stored struct{ ID string }
	status, err = c.ask(admin, req, http.StatusCreated, &stored)
	return stored.ID, status, err
}

// admin is the user of HTTP requests.
var admin = chat.User{Name: "backend", Role: chat.RoleAdmin}

// ask makes a request and decodes an answer with the wanted status.
func (c *cluster) ask(as chat.User, req *http.Request, want int, answer any) (status int, err error) {
	req.Header.Set("Authorization", "Bearer "+c.tokens.token(as, c.expires))
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode != want {
		return resp.StatusCode, nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return resp.StatusCode, fmt.Errorf("reading %.100q: %w", b, err)
	}
	return resp.StatusCode, nil
}

// talker publishes over a client's socket.
type talker struct {
	client *client
	speech *speech

	mu      sync.Mutex // guards pending
	pending map[string]said
}

// said is a broadcast without an answer yet.
type said struct {
	content string
	at      time.Time
}

func newTalker(c *client, s *speech) *talker {
	t := &talker{client: c, speech: s, pending: make(map[string]said)}
	c.hear = t.hear
	return t
}

// talkForever publishes until ctx ends, at most once per interval, without waiting for the
// answers.
func (t *talker) talkForever(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if t.client.connected() == nil {
			continue
		}
		channel, content := t.speech.next()
		ref, _, _ := strings.Cut(content, " ")
		t.client.ledger.publishing(channel, content)
		t.mu.Lock()
		t.pending[ref] = said{content, time.Now()}
		t.mu.Unlock()
		command := map[string]string{"type": "broadcast", "content": content, "ref": ref}
		if channel != "" {
			command["channel"] = channel
		}
		if err := t.client.send(command); err != nil {
			t.forget(ref)
		}
	}
}

func (t *talker) forget(ref string) (what said, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	what, ok = t.pending[ref]
	delete(t.pending, ref)
	return what, ok
}

func (t *talker) hear(e event) {
	report := t.client.report
	switch e.Type {
	case "": // what is not answered yet never will be
		t.mu.Lock()
		clear(t.pending)
		t.mu.Unlock()
	case "ack", "error":
		what, ok := t.forget(e.Ref)
		if !ok {
			report.find(findProtocol, "%s got an answer to nothing: %+v", t.client.user.Name, e)
			return
		}
		took := time.Since(what.at)
		report.published(took, e.Type == "ack")
		if n := t.client.connected(); took > answerWithin && n != nil && !n.disturbed() {
			report.find(findPublish, "%s took %v to answer %s with %s", n.name, took.Round(time.Millisecond), t.client.user.Name, e.Type)
		}
		if e.Type == "ack" {
			t.client.ledger.acked(what.content, e.ID)
		} else if e.Code != "unavailable" {
			report.find(findProtocol, "%s published and got %s: %s", t.client.user.Name, e.Code, e.Message)
		}
	}
}

// unanswered returns how many broadcasts wait for an answer on an open socket.
func (t *talker) unanswered() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending)
}
