//go:build !linux

package fanout

import "net"

type tryFunc func(b []byte) (int, error)

// nonBlocking is nil: here every write is the drainer's.
func nonBlocking(net.Conn) tryFunc { return nil }
