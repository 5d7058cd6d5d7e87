package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
	"github.com/reto10/chat/internal/chatdtest"
)

// TestAsManyChannelsAsThereMayBeAreResumed has a client come back through a proxy,
// with all of its channels, and the id of each, in the address.
func TestAsManyChannelsAsThereMayBeAreResumed(t *testing.T) {
	t.Parallel()
	node := program.Start(t, nil, "-plaintext")
	var channels []string
	for i := range chat.DefaultChannelsPerSocket {
		channels = append(channels, fmt.Sprintf("%0128d", i)) // names as long as may be
	}
	for _, kind := range proxies {
		t.Run(kind.name, func(t *testing.T) {
			s := newSetup(t, host(node))
			p := kind.start(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
			defer cancel()
			dial := func(since ...string) *client.Client {
				c, err := client.Dial(ctx, p.url, client.WithToken(node.Token("admin")),
					client.WithHTTPClient(from(t, "127.0.0.1", s.roots)), client.WithChannels(channels...), client.WithSince(since...))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			first := dial()
			since := first.Since()
			first.Close()
			again := dial(since...)
			for event, err := range again.Events(ctx) {
				if err != nil {
					t.Fatal(err)
				}
				if e, ok := event.(client.Connected); ok {
					if !e.Resumed {
						t.Error("it is not where it was")
					}
					break
				}
			}
			if length := len(strings.Join(channels, "")) + len(strings.Join(since, "")); length < 30<<10 {
				t.Fatalf("an address of %d bytes, which shows nothing", length)
			}
		})
	}
}
