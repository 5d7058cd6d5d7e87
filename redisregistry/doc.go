// Package redisregistry connects several nodes of a [chat.Service] through Redis. It has a
// [chat.Registry] and a [chat.History].
//
//	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true})
//	registry, err := redisregistry.New(client)
//	…
//	service, err := chat.New(auth, chat.WithRegistry(registry))
//	…
//	service.Shutdown(ctx)
//	registry.Shutdown(ctx)
//	client.Close()
//
// It needs Redis 6.2 or later; it is tested with 7.0. Redis may be one server, one that
// Sentinels watch, or a Cluster. In a Cluster the registry uses sharded pub/sub if all nodes
// of the Cluster have it (7.0). All keys begin with the prefix, and the keys that a script
// uses share a hash tag. The client's user must be allowed scripts, strings, hashes, sets,
// sorted sets, streams and pub/sub, and the commands DEL, EXISTS, PEXPIRE, PING, TIME and UNLINK. The
// History here also needs INFO:
//
//	ACL SETUSER chat on >password ~chat:* &chat:* +@scripting +@string +@hash +@set +@sortedset +@stream +@pubsub +del +exists +pexpire +ping +time +unlink +info
//
// If Redis rejects a command, the error of [Registry.Check] names it and what to change.
//
// # Messages
//
// One script stores a message in the channel's stream, gives it a position and publishes it.
// Messages that a node publishes while the script runs share the next call, up to 128 messages
// or 1 MiB; in a Cluster, those whose channels share a hash tag. If Redis rejects a message,
// its publisher gets an error, and no position is used up. The stream is trimmed by count and
// age. A node subscribes only to the channels that its sockets are in.
// If a node receives a message out of order, it first reads the missing ones from the stream.
// If pub/sub loses the last message of a channel, the nodes find it within about a minute,
// and at once after a reconnect.
//
// A service without [chat.WithHistory] uses the History here. With another one, for example
// in SQL, Registry.Publish publishes what that history has stored. All nodes must share it,
// so a [chat.MemoryHistory] is an error of chat.New. If Redis becomes unreachable while a
// message is stored, the publisher gets an error, and the message is published when Redis is
// back.
//
// # When Redis is unreachable
//
// No socket is closed. Publishing, connecting, joining and listing users fail at once until
// Redis is back. Each node publishes a probe twice in the time of [WithTimeout];
// [Registry.Check] returns an error if the node does not receive its probes. If the same Redis
// process comes back, acknowledged messages are delivered in order and once.
//
// # When Redis restarts, or a replica takes over
//
// After a restart, or a failover to a replica, Redis may lack messages that it acknowledged,
// and its data does not show this. So all channels begin a new epoch whenever another Redis
// process (run_id, read by INFO) serves the data, before any message is stored or read.
// Positions are never used twice. The registry closes clients with [chat.CloseTooSlow]; they
// resume and get "recovered": false. Messages that are acknowledged afterwards reach every
// client.
//
// In a Redis Cluster only the channels of the affected master begin a new epoch, and those
// whose slots moved to another master. With [WithDurableRedis] epochs continue after a
// restart, and clients notice nothing.
//
// If a running Redis loses keys, because someone flushes it or restores single keys, the nodes
// notice this when the channel is used, or within about a minute. Messages that an old master
// acknowledges before it notices a failover are lost; min-replicas-to-write limits this.
//
// # Presence
//
// Each node has a lease. When it expires, the node's users leave: every node announces this
// once, within the time of [WithLease]. Until then they are listed. A user with sockets on
// other nodes stays. A node reports later what it could not report during an outage. After an
// outage longer than the lease, every node gets the time of a lease to reconnect before its
// users leave. If nodes die while Redis loses its data, their users are no longer listed, but
// not announced as left. If Redis comes back with older data, or none, a join or a leave may
// be announced twice.
//
// Redis stores the last 20,000 joins and leaves for nodes that are disconnected. If a node
// misses more, it logs and counts them, see [Registry.Stats].
//
// All times are from Redis' clock: a socket's time is when Redis got its first report. A
// user's role is that of the newest socket.
//
// # Closing a user's sockets
//
// [Registry.CloseUser] writes an order that every node carries out. With keep 0 it closes all
// sockets that the user had at that moment, also on a node that was unreachable: such a node
// carries out the order before it reports its users again. Sockets that connect later stay
// open. Redis stores 10,000 orders for at most a day. A node that was disconnected for longer,
// or missed more, closes all its sockets with [chat.CloseGoingAway], so that the clients
// reconnect. If Redis loses its data, a node does not get the orders that it has not read.
//
// The sockets of a dead node count until its lease expires. So before [Registry.Add] reports
// more sockets than the limit, it asks the nodes that have sockets of the user, and does not
// count those that do not answer within a second. CloseUser with a keep above 0 closes the
// sockets of such nodes first.
//
// # Requirements
//
// All nodes need the same history. A node whose history has another [chat.SharedHistory] name
// than that of a running node is not ready ([ErrMisconfigured]) until the other nodes have
// ended, or their leases have expired. Histories without a name are not compared. Redis must
// not evict keys: set maxmemory-policy noeviction or maxmemory 0. A node checks this whenever
// it connects.
package redisregistry
