package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// exampleServer starts a service whose only user is the admin ana.
func exampleServer() (url string, stop func()) {
	users := must(chat.ParseUsers(strings.NewReader("ana:$2y$04$swMcZUBPNP6fe9ZRQd80j.F6XcE9VA.z1G03CUCau/0J9hYzQng2i:admin\n")))
	service := must(chat.New(chat.NewPasswordLogin(users, must(chat.NewHS256(secret)))))
	server := httptest.NewServer(service)
	return server.URL, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = service.Shutdown(ctx)
		server.Close()
	}
}

func ExampleDial() {
	url, stop := exampleServer() // such as "https://chat.example.com"
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	c, err := client.Dial(ctx, url, client.WithLogin("ana", "correct horse"), client.WithChannels("ops"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println(c.Username(), "is connected, and in", c.Channels())

	_, err = client.Dial(ctx, url, client.WithLogin("ana", "wrong"))
	fmt.Println(errors.Is(err, client.ErrUnauthenticated))
	// Output:
	// ana is connected, and in [ops]
	// true
}

// A loop over the events handles each type that the program needs. It ends when the client
// does.
func ExampleClient_Events() {
	url, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := must(client.Dial(ctx, url, client.WithLogin("ana", "correct horse")))
	defer c.Close()
	go func() {
		_, _ = c.Broadcast(ctx, "lunch is ready")
		_, _ = c.Disconnect(ctx, "ana")
	}()

	for event, err := range c.Events(ctx) {
		if errors.Is(err, client.ErrDisconnected) {
			fmt.Println("disconnected by an admin")
			break
		}
		if err != nil {
			fmt.Println(err)
			break
		}
		switch e := event.(type) {
		case client.Welcome:
			fmt.Println("connected; resumed:", e.Resumed)
		case client.Lost:
			fmt.Println("not connected, next attempt in", e.Retry)
		case client.Gap:
			fmt.Println("messages may be missing here")
		case client.Message:
			fmt.Printf("%s: %s\n", e.Sender, e.Content)
		}
	}
	// Output:
	// connected; resumed: false
	// ana: lunch is ready
	// disconnected by an admin
}

func ExampleClient_Broadcast() {
	url, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := must(client.Dial(ctx, url, client.WithLogin("ana", "correct horse")))
	defer c.Close()

	for _, to := range []string{"ops", "@bob", "no channel's name"} {
		_, err := c.Broadcast(ctx, "the deployment is done", client.To(to))
		switch {
		case err == nil:
			fmt.Println("stored and published")
		case errors.Is(err, client.ErrUnconfirmed):
			fmt.Println("perhaps stored: the connection ended before the answer")
		default:
			fmt.Println(err)
		}
	}
	// Output:
	// stored and published
	// stored and published
	// broadcasting: client: invalid: channel name "no channel's name": want 1 to 128 of A-Z a-z 0-9 . _ : -, or @ and a username
}

// A program that saves the ids of Since resumes there when it is started again.
func ExampleWithSince() {
	url, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	login := client.WithLogin("ana", "correct horse")
	next := func(c *client.Client) string {
		for event, err := range c.Events(ctx) {
			if err != nil {
				return err.Error()
			}
			if m, ok := event.(client.Message); ok {
				return m.Content
			}
		}
		return ""
	}

	first := must(client.Dial(ctx, url, login))
	must(first.Publish(ctx, "one"))
	fmt.Println(next(first))
	since := first.Since() // saved together with the work on "one"
	must(first.Publish(ctx, "two"))
	first.Close()

	second := must(client.Dial(ctx, url, login, client.WithSince(since...)))
	defer second.Close()
	fmt.Println(next(second))
	// Output:
	// one
	// two
}

// A TokenSource supplies tokens of another issuer.
func ExampleTokenSource() {
	signer := must(chat.NewHS256(secret)) // in place of an identity provider
	service := must(chat.New(signer))
	server := httptest.NewServer(service)
	defer server.Close()
	defer service.Shutdown(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	source := client.TokenSourceFunc(func(context.Context) (string, error) {
		token, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleUser})
		return token.AccessToken, err
	})
	c := must(client.Dial(ctx, server.URL, client.WithTokenSource(source)))
	defer c.Close()
	_, err := c.Broadcast(ctx, "good morning")
	fmt.Println(c.Username(), "may broadcast:", !errors.Is(err, client.ErrForbidden))
	// Output: ana may broadcast: false
}

// An API calls the HTTP routes without a socket.
func ExampleAPI() {
	url, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	api := must(client.NewAPI(url, client.WithLogin("ana", "correct horse")))
	must(api.Publish(ctx, "the backup is done"))
	page := must(api.Messages(ctx, client.Query{Newest: true, Limit: 10}))
	for _, m := range page.Messages {
		fmt.Printf("%s: %s\n", m.Sender, m.Content)
	}
	users := must(api.Connected(ctx, ""))
	fmt.Println(len(users), "connected")
	// Output:
	// ana: the backup is done
	// 0 connected
}
