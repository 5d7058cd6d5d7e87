package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/reto10/chat"
)

// serveVariable makes this program a server for the users of the file that it names.
const serveVariable = "ABUSE_SERVE"

// open is a policy by which every user may publish.
type open struct{ chat.DefaultPolicy }

func (open) Publish(context.Context, chat.Identity, string) error { return nil }

// serve runs a service whose users may publish until it is interrupted, and returns the exit
// code. Like chatd it prints its address on stderr.
func serve() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serveUntil(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "abuse: serving: %v\n", err)
		return 1
	}
	return 0
}

func serveUntil(ctx context.Context) error {
	file, err := os.ReadFile(os.Getenv(serveVariable))
	if err != nil {
		return err
	}
	users, err := chat.ParseUsers(bytes.NewReader(file))
	if err != nil {
		return err
	}
	signer, err := chat.NewHS256([]byte(secret))
	if err != nil {
		return err
	}
	from := func(r *http.Request) string { return r.Header.Get("X-Forwarded-For") }
	service, err := chat.New(chat.NewPasswordLogin(users, signer), chat.WithPolicy(open{}), chat.WithClientAddr(from))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/", service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	fmt.Fprintf(os.Stderr, "listening on http://%s\n", l.Addr())
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	over, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return errors.Join(err, service.Shutdown(over), server.Close())
}
