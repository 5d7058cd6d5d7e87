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

// A connection that was accepted and whose request comes a moment later is answered.
func TestRequestsAreFinishedBeforeTheServerEnds(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &lastCall{Listener: inner}
	begun, answer := make(chan struct{}), make(chan struct{})
	var going leaving
	going.begun.Store(true)
	watched := 0
	srv := &http.Server{
		Handler: going.around(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun <- struct{}{}
			<-answer
			io.WriteString(w, "done")
		})),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				watched++
			}
		},
	}
	var under requests
	under.watch(srv)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	conn, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.end()
	<-served
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		under.finish(t.Context())
	}()
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	select {
	case <-finished:
		t.Error("it does not wait for a request")
	case <-time.After(20 * time.Millisecond):
	}
	close(answer)
	<-finished
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(conn); err != nil || len(text) < 4 || string(text[len(text)-4:]) != "done" {
		t.Errorf("answered %q, %v", text, err)
	}
	if watched != 1 {
		t.Errorf("the hook of before was called %d times", watched)
	}

	// One that sends nothing is not waited for without end, nor is anything when time is up.
	under.busy[conn] = http.StateNew
	under.finish(t.Context())
	under.busy[conn] = http.StateActive
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	under.finish(ctx)
}
