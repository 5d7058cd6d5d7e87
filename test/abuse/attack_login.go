package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

const form = "Content-Type: application/x-www-form-urlencoded"

// guessFromNetworks tries usernames that do not exist, from every /64 of a /56.
func guessFromNetworks(connections int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		connections := b.less(connections)
		asking(ctx, b, connections, func(connection, n int) string {
			i := n*connections + connection
			body := url.Values{"username": {fmt.Sprint("nobody", i)}, "password": {"wrong"}}.Encode()
			return request(http.MethodPost, "/login", "", fmt.Sprintf("2001:db8:0:%x::1", i%256), body, form)
		})
	}
}

// logInAgain logs a user in from a number of addresses, with several connections each.
func logInAgain(addresses, each int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		body := url.Values{"username": {"mallory0"}, "password": {password}}.Encode()
		asking(ctx, b, addresses*b.less(each), func(connection, _ int) string {
			return request(http.MethodPost, "/login", "", fmt.Sprint("203.0.113.", 1+connection%addresses), body, form)
		})
	}
}

// lockOut does what a foreign page can do in the browsers of all visitors: a POST without a
// preflight, from the visitor's own address.
func lockOut(connections int) func(context.Context, *arena) {
	return func(ctx context.Context, b *arena) {
		connections := b.less(connections)
		asking(ctx, b, connections, func(connection, n int) string {
			name, from := visitor(n*connections + connection)
			body := fmt.Sprintf(`{"username":%q,"password":"wrong"}`, name)
			return request(http.MethodPost, "/login", "", from, body,
				"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Content-Type: text/plain")
		})
	}
}
