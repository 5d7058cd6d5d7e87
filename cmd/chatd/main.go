// Chatd serves authenticated notification chat over WebSocket: one process, with
// everything in memory. Without flags it is a server to try things on, which
// makes its users, key and certificate at start; -help lists the flags.
//
//	go run ./cmd/chatd
//	chatd hash -user ana -role admin >> users
//	chatd -users users -secret-file secret -tls-cert cert.pem -tls-key key.pem -addr :443
//
// It writes "listening on https://127.0.0.1:8443" on stderr when clients may
// come, and ends with 0 when it was asked to and everybody was told, 1 when
// something went wrong, 2 when it was started in a way that makes no sense.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/reto10/chat/internal/daemon"
)

func main() {
	os.Exit(daemon.Main(context.Background(), daemon.Program{Name: "chatd"}, daemon.Process{
		Args:      os.Args[1:],
		LookupEnv: os.LookupEnv,
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		Notify:    signal.Notify,
	}))
}
