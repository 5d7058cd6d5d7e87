package client_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/reto10/chat/client"
	"github.com/reto10/chat/test/pipenet"
)

// Whatever bytes a server sends on a WebSocket, the client ends in order.
func FuzzWhatAServerSends(f *testing.F) {
	const message = `{"type":"message","id":"1-e","sender":"x","content":"hi","time":"2026-11-24T03:31:58.926Z"}`
	for _, sent := range [][]byte{
		nil,
		text(aWelcome),
		bytes.Join([][]byte{text(aWelcome), text(message), text(message)}, nil),
		bytes.Join([][]byte{text(aWelcome), frame(0x01, message[:10], 10), frame(0x89, "", 0), frame(0x80, message[10:], uint64(len(message)-10))}, nil),
		bytes.Join([][]byte{text(aWelcome), text(`{"type":"user_joined","username":"x","role":"y","time":"2026-11-24T03:31:58.926Z"}`)}, nil),
		bytes.Join([][]byte{text(aWelcome), text(`{"type":"ack","ref":1,"id":"1-e","since":"2-e"}`)}, nil),
		bytes.Join([][]byte{text(aWelcome), text(`{"type":"error","ref":1,"code":"forbidden","message":"no"}`)}, nil),
		bytes.Join([][]byte{text(aWelcome), frame(0x88, "\x0f\xa2bye", 5)}, nil),
		bytes.Join([][]byte{text(aWelcome), frame(0x88, "\x03\xf1", 2)}, nil),
		bytes.Join([][]byte{text(aWelcome), frame(0x82, "x", 1)}, nil),
		bytes.Join([][]byte{text(aWelcome), frame(0x81, "x", 1<<63)}, nil),
		text(`{"type":"welcome","user":"ana","since":["0-e","0-e-@ana"],"expires_in":-9223372036854775808,"recovered":false}`),
		text(`{"type":"welcome","user":"@","since":["",""]}`),
	} {
		f.Add(sent)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		l := pipenet.Listen()
		ended := make(chan struct{})
		srv := &http.Server{Handler: first(1, 0, upgrade(func(conn net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, conn) }() // until it is closed
			_, _ = conn.Write(sent)
		}))(http.NotFoundHandler())}
		go func() {
			defer close(ended)
			_ = srv.Serve(l)
		}()
		transport := &http.Transport{DialContext: l.Dial}
		defer func() {
			transport.CloseIdleConnections()
			srv.Close()
			<-ended
		}()
		c, err := client.Dial(within(t), "http://pipe.test", client.WithToken("t"), client.WithHTTPClient(&http.Client{Transport: transport}),
			client.WithBackoff(time.Microsecond, time.Microsecond), client.WithEventLimit(4, 100))
		if err != nil {
			return
		}
		defer c.Close()
		go func() { _, _ = c.Broadcast(within(t), "hi") }()
		begun := false
		for event, err := range c.Events(within(t)) {
			if err != nil {
				// The service is not found by the next try, unless a close code ended it.
				if !errors.Is(err, client.ErrNotFound) && !errors.Is(err, client.ErrDisconnected) &&
					!errors.Is(err, client.ErrReplaced) && !errors.Is(err, client.ErrUnauthenticated) {
					t.Errorf("ended with %v", err)
				}
				break
			}
			if _, ok := event.(client.Welcome); !ok && !begun {
				t.Errorf("%+v comes first", event)
			}
			begun = true
		}
	})
}
