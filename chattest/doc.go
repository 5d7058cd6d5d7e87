// Package chattest has conformance suites for implementations of [chat.Registry] and
// [chat.History]. Each test checks a sentence of their contracts. The implementations in
// memory pass them. An adapter's test calls a suite so:
//
//	func TestRegistry(t *testing.T) {
//		chattest.TestRegistry(t, func(t *testing.T) []chattest.Node {
//			h := openHistory(t)
//			return []chattest.Node{
//				{Registry: openRegistry(t), History: h},
//				{Registry: openRegistry(t), History: h},
//			}
//		})
//	}
//
// [TestRegistry], [TestHistory] and [TestRetention] call the ports directly.
// [TestDelivery] runs services on them, with clients that act at random and check what the
// protocol promises:
//
//	func TestDelivery(t *testing.T) {
//		for seed := range uint64(3) {
//			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
//				chattest.TestDelivery(t, seed, openNodes)
//			})
//		}
//	}
//
// An adapter's own tests cover what it does when its server fails or is slow.
//
// Two helpers are for tests of your own code. [NewService] starts a service with users
// who can log in. [SocketRecorder] is a socket that records what a registry delivers.
package chattest
