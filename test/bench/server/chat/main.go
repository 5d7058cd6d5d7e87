// Command chat serves this library, to be compared with its peers.
package main

import (
	"github.com/reto10/chat/test/bench/peer"
	"github.com/reto10/chat/test/bench/server/internal/chatpeer"
)

func main() {
	peer.Main(func(_ string, s peer.Settings) (peer.Peer, error) { return chatpeer.New(s) }, "chat")
}
