// Package chaos runs a cluster of real processes (nodes, Redis, PostgreSQL) under constant
// traffic, breaks it by a plan that a seed decides, and checks the promises of the
// protocol:
//
//   - every client receives every message of its channels once, in order, with the content
//     that was published, and every acknowledged message is among them;
//   - a client that lacks an acknowledged message was told that messages are missing, and
//     only after a fault that may lose messages;
//   - no two messages have the same id, and no publish is acknowledged in an epoch that a
//     fault ended before;
//   - the history, read page by page in both directions, ends, has no holes and has every
//     acknowledged message;
//   - no socket closes, except those of a node that ended or of a line that was cut;
//   - every node lists the connected users exactly, and joins and leaves are announced
//     once;
//   - no goroutine, socket, process, port or key is left behind.
//
// There are two kinds of runs. By default Redis and PostgreSQL keep what they acknowledge:
// no message may be lost, and no loss may be reported. In a run that is [Config.Lossy] they
// restart empty, with older data, after a crash that lost unwritten data, or as a replica
// that lagged behind. Messages are lost then, and each client that misses one must be told.
// In both kinds the nodes' clocks may be wrong ([Config.Skew]). [Config.ForSeed] chooses
// the kind by the seed.
//
// [Storm] is another run: a node is killed and all its clients resume at another node at
// once (storm.go).
//
// [Run] does a whole run; the command in cmd/chaos calls it with flags. A run has phases,
// each in its own file: the nodes and their backends start (redis.go, postgres.go,
// node.go), clients connect (client.go), publishers publish (publish.go), faults strike
// (plan.go, fault.go, faults_redis.go, faults_postgres.go), the traffic stops and the
// history is read (settle.go, pages.go), and all clients leave (leftover.go). The ledger
// compares the acknowledged messages with those that were delivered or reported lost
// (ledger.go, loss.go). Each failed check is a finding (report.go).
package chaos
