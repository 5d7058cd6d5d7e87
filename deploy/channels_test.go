package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/reto10/chat/client"
	"github.com/reto10/chat/test/chatdtest"
)

// TestAsManyChannelsAsThereMayBeAreResumed has a client come back through a proxy, whose
// bound for an address is far below all of its channels and their ids.
func TestAsManyChannelsAsThereMayBeAreResumed(t *testing.T) {
	t.Parallel()
	node := program.Start(t, nil, "-plaintext")
	var channels []string
	for i := range 128 {
		channels = append(channels, fmt.Sprintf("%0128d", i)) // names as long as may be
	}
	for _, kind := range proxies {
		t.Run(kind.name, func(t *testing.T) {
			s := newSetup(t, host(node))
			if kind.name == "nginx" { // also with its own 8 KiB for a request line
				s.edits = []string{"large_client_header_buffers 4 16k;", ""}
			}
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
				if e, ok := event.(client.Welcome); ok {
					if !e.Resumed {
						t.Error("it is not where it was")
					}
					break
				}
			}
			if length := len(strings.Join(channels, "")) + len(strings.Join(since, "")); length < 30<<10 {
				t.Fatalf("channels and ids of %d bytes, which show nothing", length)
			}
		})
	}
}
