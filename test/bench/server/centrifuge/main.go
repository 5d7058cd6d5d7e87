// Command centrifuge serves sockets with github.com/centrifugal/centrifuge.
package main

import (
	"github.com/reto10/chat/test/bench/peer"
	"github.com/reto10/chat/test/bench/server/internal/centrifugepeer"
)

func main() {
	peer.Main(func(_ string, s peer.Settings) (peer.Peer, error) { return centrifugepeer.New(s, nil) }, "centrifuge")
}
