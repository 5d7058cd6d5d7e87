// Package redisregistry lets several nodes of a [chat.Service] be one: a
// [chat.Registry] on Redis, and a [chat.History] beside it.
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
// It needs Redis 6.2 or later (7.0 is what it is tested with): one server, one that
// Sentinel watches, or a Cluster, where it uses sharded pub/sub if all have it (7.0).
// Keys with one hash tag are used together, and all keys begin with the prefix. The
// client's credentials have to allow scripts, strings, hashes, sets, sorted sets,
// streams and pub/sub, and the commands DEL, EXISTS, PEXPIRE, PING, TIME and, for the
// History here, INFO:
//
//	ACL SETUSER chat on >password ~chat:* &chat:* +@scripting +@string +@hash +@set +@sortedset +@stream +@pubsub +del +exists +pexpire +ping +time +info
//
// What Redis refuses is in the error of [Registry.Check], with what to change about it.
//
// # Messages
//
// To publish is one script: it keeps the message in the channel's stream, which is
// trimmed by count and age, gives it its position and publishes it. If any of that is
// refused the publisher gets an error, and no position is left without its message. A
// node subscribes to the channels that its sockets are in, and to no others. A node
// that gets a message out of turn reads the missing ones from the stream first; a
// message that was lost without a later one to show it is found within about a minute,
// and at once when the connection was lost, too.
//
// A service without [chat.WithHistory] uses the History here. With another one, in SQL for
// example, Publish publishes what that has stored. All nodes have to share it, so a
// [chat.MemoryHistory] is an error of chat.New. If Redis cannot be reached any more when a
// message is stored, the publisher gets an error, and the message is published when Redis
// is back.
//
// # Redis is away
//
// No socket is closed. What needs Redis (publishing, connecting, joining, listing
// who is connected) fails at once until it is back; [Registry.Check] says so, which
// goes by a probe that this node publishes and has to hear every second. What was
// acknowledged is delivered when the same Redis process is back, in order and once.
//
// # Redis starts again, or a replica takes over
//
// What a Redis has when it starts may be older than what it has acknowledged: its file
// lags behind (appendfsync everysec), is a snapshot, or was replaced by a copy; a
// replica that takes over may lag behind; and it may have nothing. Nothing in the data
// says which. So all channels begin a new epoch whenever another process serves the
// data (Redis' run_id, which its user has to be allowed to ask for: INFO), before
// anything is acknowledged or read, whichever node comes first. Positions are never used twice. Connected clients are closed with
// [chat.CloseTooSlow], resume, and are told that messages may be missing
// ("recovered": false); what is acknowledged from then on reaches everybody.
//
// In a Redis Cluster this goes for the channels of the master that is another one, or
// that slots were moved from. [WithDurableRedis] says that a restart loses nothing:
// then epochs go on, and clients notice nothing.
//
// A Redis that is emptied while it runs, or whose keys are restored one by one, is
// noticed where keys are missing, and no sooner than the channel is used or looked at,
// about once a minute. What a master acknowledges after a replica has taken its place,
// because it has not noticed, is lost: min-replicas-to-write bounds that.
//
// # Presence
//
// Each node holds a lease. Users of a node whose lease ran out leave, on all nodes
// alike and once, within the time of [WithLease]; a user with sockets on other nodes
// stays. Until then they are listed. What a node could not tell Redis it tells later.
// After an outage that was longer than the lease, or when all leases ran out
// together, no node is given up before it had as much time to come back. Users of nodes
// that die while Redis loses all it has are not announced as left, but they are not
// listed any more either. When Redis comes back with older data, or none, a join or a
// leave may be announced twice.
//
// Redis keeps the last 20,000 joins and leaves for nodes that are away. What a node
// missed beyond that is counted, see [Registry.Stats], and logged.
//
// Nothing of this goes by a node's clock. A user's sockets are as old as Redis heard of
// them, and the role is that of the newest.
//
// # Closing a user's sockets
//
// [Registry.CloseUser] leaves an order, which every node carries out when it reads it: for
// keep 0 on all sockets of the user that there were at that moment, also on a node that
// was halted or cut off, and even if its users had left meanwhile. Such a node does so
// before it tells of its users again. Sockets that connect later stay. Redis keeps
// 10,000 orders, and those of a day; a node that was away for longer closes all its
// sockets with [chat.CloseGoingAway], so that they reconnect. Orders that Redis loses
// with its data are lost to nodes that have not read them.
//
// A node that has died counts until its lease ends. Before a socket is one too many,
// [Registry.Add] asks the other nodes that have sockets of the user. A node that does not
// answer within a second does not count. Likewise CloseUser closes the sockets of such a
// node first when some are to remain.
//
// # What has to fit
//
// All nodes need the same history. One whose history is another than that of a running
// node, by [chat.SharedHistory], is not ready and says so: [ErrMisconfigured]. When the
// others have ended, or their leases are over, it is. Histories that do not say which
// they are are not compared. Nor is a Redis used that evicts keys when it is full, if it
// tells: maxmemory-policy has to be noeviction, or maxmemory 0. That is looked at
// whenever a node connects.
package redisregistry
