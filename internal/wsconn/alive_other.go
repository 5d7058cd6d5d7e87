//go:build !linux || 386 || s390x

package wsconn

import (
	"net"
	"time"
)

// unanswered knows nothing on this platform: Beat sends pings.
func (immediate) unanswered(time.Duration) (dead, known bool) { return false, false }

// hungUp knows nothing on this platform: a reader notices.
func (immediate) hungUp() bool { return false }

func multipath(net.Conn) bool { return false }
