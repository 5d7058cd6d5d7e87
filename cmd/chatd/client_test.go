package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/client"
	"github.com/reto10/chat/test/chatdtest"
)

// A chatd that keeps its history in memory forgets it when it is killed. Its clients
// say so, and go on with what the new one has.
func TestAClientTellsOfAGapWhenTheHistoryIsGone(t *testing.T) {
	t.Parallel()
	args := []string{"-secret-file", write(t, "secret", chatdtest.Secret)}
	first := start(t, nil, args...)
	var at atomic.Pointer[string] // where connections go to; "" is nowhere
	to := func(rawURL string) {
		u, err := url.Parse(rawURL)
		if err != nil {
			t.Fatal(err)
		}
		at.Store(&u.Host)
	}
	to(first.URL)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if *at.Load() == "" {
				return nil, errors.New("the new one is not there yet")
			}
			return new(net.Dialer).DialContext(ctx, network, *at.Load())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	opts := []client.Option{
		client.WithHTTPClient(&http.Client{Transport: transport}), client.WithBackoff(time.Millisecond, 10*time.Millisecond),
	}
	c, err := client.Dial(within(t), "https://chatd.test", append(opts,
		client.WithLogin("user", chatdtest.Passwords["user"]), client.WithChannels("ops"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	api, err := client.NewAPI("https://chatd.test", append(opts, client.WithLogin("admin", chatdtest.Passwords["admin"]))...)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(a *client.API, content string, opts ...client.BroadcastOption) string {
		t.Helper()
		m, err := a.Publish(within(t), content, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return m.ID
	}

	before := publish(api, "before")
	var got []any
	for event, err := range c.Events(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		m, ok := event.(client.Message)
		if ok && m.ID == before {
			break
		}
	}
	since := c.Since()
	to("")
	first.Kill()
	second := start(t, nil, args...)
	// There, others are back before this client is.
	direct, err := client.NewAPI(second.URL, client.WithHTTPClient(second.HTTP), client.WithLogin("admin", chatdtest.Passwords["admin"]))
	if err != nil {
		t.Fatal(err)
	}
	publish(direct, "meanwhile 1")
	publish(direct, "meanwhile 2")
	publish(direct, "meanwhile, to ops", client.To("ops"))
	to(second.URL)
	live := ""
	for event, err := range c.Events(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		switch e := event.(type) {
		case client.Gap:
			got = append(got, e)
		case client.Message:
			got = append(got, e.Content)
			if e.Content == "meanwhile, to ops" {
				live = publish(direct, "live")
			}
		}
		if m, ok := event.(client.Message); ok && m.ID == live {
			break
		}
	}
	if diff := cmp.Diff([]any{
		client.Gap{Channel: "", After: since[0]}, client.Gap{Channel: "@user", After: since[1]}, client.Gap{Channel: "ops", After: since[2]},
		"meanwhile 1", "meanwhile 2", "meanwhile, to ops", "live",
	}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
