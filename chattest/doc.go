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
// What an adapter does when its server stops, or is slow, is for its own tests.
package chattest
