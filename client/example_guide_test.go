package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

// This file contains code of docs/embedding.md and an example that runs it. A test
// compares the two.

// followChannel passes the messages of a channel of another service to got, until
// ctx ends.
func followChannel(ctx context.Context, url string, token client.TokenSource, channel string, got func(client.Message)) error {
	c, err := client.Dial(ctx, url, client.WithTokenSource(token), client.WithChannels(channel))
	if err != nil {
		return err
	}
	defer c.Close()
	for event, err := range c.Events(ctx) {
		if err != nil {
			return err // ctx's error, or why the client has ended
		}
		switch e := event.(type) {
		case client.Message:
			if e.Channel == channel {
				got(e)
			}
		case client.Gap:
			if e.Channel == channel {
				return errors.New("some messages are no longer kept: start again")
			}
		}
	}
	return nil
}

// A program that follows one channel of a service, with tokens that it makes itself.
func ExampleClient_Events_channel() {
	signer, err := chat.NewHS256([]byte("a secret of 32 bytes at the least"))
	if err != nil {
		panic(err)
	}
	service, err := chat.New(signer)
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(service)
	defer server.Close()
	defer service.Shutdown(context.Background())
	tokens := client.TokenSourceFunc(func(context.Context) (string, error) {
		token, err := signer.Issue(chat.User{Name: "robot"})
		return token.AccessToken, err
	})

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go func() { // publishes once a user is in the channel
		for {
			if there, err := service.Connected(ctx, "ops"); err != nil || len(there) > 0 {
				break
			}
			<-time.After(time.Millisecond)
		}
		_, _ = service.Broadcast(ctx, chat.Message{Channel: "ops", Sender: "eva", Content: "deploying"})
	}()
	err = followChannel(ctx, server.URL, tokens, "ops", func(m client.Message) {
		fmt.Printf("%s: %s\n", m.Sender, m.Content)
		cancel()
	})
	fmt.Println(err)
	// Output:
	// eva: deploying
	// context canceled
}
