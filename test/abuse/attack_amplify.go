package main

import (
	"context"
	"net/http"
	"strings"
)

// askRanges asks for the first byte of a file thousands of times in one request: as often as
// the file has bytes, because a server answers more ranges with the whole file.
func askRanges(connections int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		const path, most = "/chat.js", 15_000 // of which 64 KiB of headers have room
		p, err := b.dial(ctx, 0)
		if err != nil {
			b.tally.note("not connected: %v", err)
			return
		}
		file, err := p.get(request(http.MethodGet, path, "", "", ""))
		p.close()
		if err != nil {
			b.tally.note("reading %s: %v", path, err)
			return
		}
		ranges := "Range: bytes=0-0" + strings.Repeat(",0-0", min(len(file), most)-1)
		page := request(http.MethodGet, path, "", "", "", ranges)
		before := b.spent()
		asking(ctx, b, b.less(connections), func(int, int) string { return page })
		b.tally.perRequest(b.spent() - before)
	}
}

func askReady(connections int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		ready := request(http.MethodGet, "/readyz", "", "", "")
		before := b.spent()
		asking(ctx, b, b.less(connections), func(int, int) string { return ready })
		b.tally.perRequest(b.spent() - before)
	}
}
