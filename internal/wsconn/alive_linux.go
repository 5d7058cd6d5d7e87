//go:build linux && !386 && !s390x

package wsconn

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// unanswered reports whether the peer's kernel is asked again and again for an
// acknowledgement that it owes, and has sent none for d (TCP_INFO, tcp(7)); known
// is false when our kernel does not tell. A peer that does not read but is there
// goes on acknowledging the probes of its closed window; TCP_USER_TIMEOUT would
// end it.
func unanswered(raw syscall.RawConn, d time.Duration) (dead, known bool) {
	info, known, bad := tcpInfo(raw)
	silent := time.Duration(info.Last_ack_recv) * time.Millisecond
	dead = known && info.Unacked > 0 && info.Retransmits > 0 && silent >= d
	return dead, known || bad != nil // one that is closed needs no beat
}

// hungUp reports whether the peer has closed its end, or the connection is broken.
func hungUp(raw syscall.RawConn) bool {
	const established = 1 // TCP_ESTABLISHED of netinet/tcp.h
	info, known, bad := tcpInfo(raw)
	return bad != nil || known && info.State != established
}

// tcpInfo asks our kernel about a connection; known is false when it does not tell.
func tcpInfo(raw syscall.RawConn) (info syscall.TCPInfo, known bool, bad error) {
	bad = raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		known = errno == 0
	})
	return info, known, bad
}

// multipath reports whether conn speaks Multipath TCP.
func multipath(conn net.Conn) bool {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return false
	}
	several, err := tcp.MultipathTCP()
	return several && err == nil
}
