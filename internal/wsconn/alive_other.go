//go:build !linux || 386 || s390x

package wsconn

import (
	"net"
	"syscall"
	"time"
)

// unanswered knows nothing on this platform: Beat sends pings.
func unanswered(syscall.RawConn, time.Duration) (dead, known bool) { return false, false }

// hungUp knows nothing on this platform: a reader notices.
func hungUp(syscall.RawConn) bool { return false }

func multipath(net.Conn) bool { return false }
