//go:build !unix

package daemon

import "net"

// acceptRest accepts nothing: what waits is reset.
func acceptRest(net.Listener) []net.Conn { return nil }
