//go:build !unix

package daemon

import "net"

// acceptPending accepts nothing here: closing the listener resets what waits.
func acceptPending(net.Listener) []net.Conn { return nil }
