// Package chaos runs a cluster of real processes (nodes, Redis, PostgreSQL) under
// traffic that never stops, breaks it by a plan that a seed decides, and checks
// what the protocol promises:
//
//   - every client has every message of its channels once, in order, with the
//     content that was published, and all that was acknowledged is among it;
//   - a client that lacks an acknowledged message was told so, and only after a
//     fault that may lose messages;
//   - no id is given to two messages, and no publish is acknowledged in an epoch
//     that a fault ended before;
//   - the history, read page by page in both directions, ends, has no holes and
//     has what was acknowledged;
//   - no socket closes but those of a node that went away or of a line that was cut;
//   - who is connected is known exactly, on every node, and joins and leaves are
//     announced once;
//   - no goroutine, socket, process, port or key is left behind.
//
// There are two kinds of runs. By default Redis and PostgreSQL keep what they said
// they had: nothing may be lost, and no loss may be reported. In a run that is
// [Config.Lossy] they come back empty, with older data, after a crash that took what
// was not on the disk, or as a replica that lagged behind. Messages are lost then, and
// each client that misses one has to be told. In both kinds the nodes' clocks may be
// wrong ([Config.Skew]). [Config.ForSeed] deals the kinds over seeds.
//
// [Storm] is another run: the clients of a node that is killed all resume at another
// one at once (storm.go).
//
// [Run] does all of it; the command in cmd/chaos is Run with flags. A run goes
// through phases, each in a file of its own: the nodes and what they depend on
// start (redis.go, postgres.go, node.go), clients connect and follow (client.go),
// publishers publish (publish.go), faults strike (plan.go, fault.go, faults_redis.go,
// faults_postgres.go), everybody settles, the history is read (settle.go, pages.go),
// and all leave (leftover.go). The ledger compares what was acknowledged with what
// came, and with what was reported lost (ledger.go, loss.go). What is found to be
// wrong is a finding (report.go).
package chaos
