// Package chattest holds the conformance suites that every [chat.Registry] and
// every [chat.History] has to pass. Each test stands for a sentence of their
// contracts. The ones in memory pass them; an adapter's tests say
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
// [TestRegistry], [TestHistory] and [TestRetention] call the ports themselves.
// [TestDelivery] puts services before them, and has clients check what the protocol
// promises while they do at random what clients do:
//
//	func TestDelivery(t *testing.T) {
//		for seed := range uint64(3) {
//			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
//				chattest.TestDelivery(t, seed, openNodes)
//			})
//		}
//	}
//
// What an adapter does when its server stops, or is slow, is for its own tests.
//
// Two helpers are for tests of your own code. [NewService] starts a service with users
// who can log in. [SocketRecorder] is a socket that records what a registry delivers.
package chattest
