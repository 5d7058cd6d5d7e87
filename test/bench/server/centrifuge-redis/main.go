// Command centrifuge-redis serves sockets with github.com/centrifugal/centrifuge as a node of
// several on one Redis.
package main

import (
	"github.com/centrifugal/centrifuge"

	"github.com/reto10/chat/test/bench/peer"
	"github.com/reto10/chat/test/bench/server/internal/centrifugepeer"
)

func main() { peer.Main(newNode, "centrifuge-redis") }

func newNode(_ string, s peer.Settings) (peer.Peer, error) {
	return centrifugepeer.New(s, func(n *centrifuge.Node) error {
		shard, err := centrifuge.NewRedisShard(n, centrifuge.RedisShardConfig{Address: s.Store})
		if err != nil {
			return err
		}
		broker, err := centrifuge.NewRedisBroker(n, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
		if err != nil {
			return err
		}
		n.SetBroker(broker)
		return nil
	})
}
