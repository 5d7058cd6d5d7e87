// Chatd serves authenticated notification chat over WebSocket, in one process that keeps
// everything in memory. Without flags it is a server to try out, and makes its users, key
// and certificate at start. -help lists the flags.
//
//	go run ./cmd/chatd
//	chatd hash -user ana -role admin >> users
//	chatd -users users -secret-file secret -tls-cert cert.pem -tls-key key.pem -addr :443
//
// When it accepts clients, it writes "listening on https://127.0.0.1:8443" to stderr. It
// exits with 0 after it has drained, 1 after a failure, and 2 when its settings are wrong.
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
