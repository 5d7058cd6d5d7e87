package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func unwrapped(l net.Listener) net.Listener { return l }

// A request is answered even if it comes a moment after its connection was accepted.
func TestRequestsAreFinishedBeforeTheServerEnds(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun, answer := make(chan struct{}), make(chan struct{})
	watched := 0
	srv := newDrainServer(&http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun <- struct{}{}
			<-answer
			io.WriteString(w, "done")
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				watched++
			}
		},
	})
	srv.leave()
	srv.serve(inner, unwrapped, func(error) {})
	conn, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	srv.drainListeners(t.Context())
	finished := make(chan error)
	go func() { finished <- srv.drain(t.Context()) }()
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	select {
	case <-finished:
		t.Error("drain does not wait for a request")
	case <-time.After(20 * time.Millisecond):
	}
	close(answer)
	if err := <-finished; err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(conn); err != nil || len(text) < 4 || string(text[len(text)-4:]) != "done" {
		t.Errorf("answered %q, %v", text, err)
	}
	if watched != 1 {
		t.Errorf("the server's own ConnState was called %d times", watched)
	}
}

func TestAwaitingRequestsIsBounded(t *testing.T) {
	srv := newDrainServer(&http.Server{Handler: http.NotFoundHandler()})
	conn, peer := net.Pipe()
	defer conn.Close()
	defer peer.Close()
	srv.note(conn, http.StateNew) // it never sends a request
	srv.awaitRequests(t.Context())
	srv.note(conn, http.StateActive) // its request is never answered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	srv.awaitRequests(ctx)
}
