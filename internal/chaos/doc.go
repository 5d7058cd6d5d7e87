// Package chaos runs a cluster of real processes (nodes, Redis, PostgreSQL) under
// traffic that never stops, breaks it by a plan that a seed decides, and checks
// what the protocol promises:
//
//   - every client has every message of its channels once, in order, with the
//     content that was published, and all that was acknowledged is among it;
//   - no socket closes but those of a node that went away or of a line that was cut;
//   - who is connected is known exactly, on every node, and comings and goings are
//     told once;
//   - no goroutine, socket, process, port or key is left behind.
//
// [Run] does all of it; the command in cmd/chaos is Run with flags. A run goes
// through phases, each in a file of its own: the nodes and what they stand on
// start (backend.go, node.go), clients connect and follow (client.go), publishers
// publish (publish.go), faults strike (plan.go, fault.go), all settles and leaves
// (settle.go, leftover.go). What is found to be wrong is a finding (report.go).
package chaos
