//go:build linux && !386 && !s390x

package wsconn

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// unanswered reports whether the peer's kernel owes an acknowledgement, did not answer
// retransmissions, and has sent nothing for d (TCP_INFO, tcp(7)). known is false if our
// kernel does not say. A live peer that does not read still acknowledges the probes of
// its closed window; TCP_USER_TIMEOUT would end it.
func (w immediate) unanswered(d time.Duration) (dead, known bool) {
	info, known := w.tcpInfo()
	silent := time.Duration(info.Last_ack_recv) * time.Millisecond
	return known && info.Unacked > 0 && info.Retransmits > 0 && silent >= d, known
}

// hungUp reports whether the peer has closed its end, or the connection is broken.
func (w immediate) hungUp() bool {
	const established = 1 // TCP_ESTABLISHED of netinet/tcp.h
	info, known := w.tcpInfo()
	return known && info.State != established
}

// tcpInfo reads TCP_INFO. known is false if the kernel has none for this socket.
func (w immediate) tcpInfo() (info syscall.TCPInfo, known bool) {
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(w.fd-1), syscall.IPPROTO_TCP, syscall.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info, errno == 0
}

// multipath reports whether conn uses Multipath TCP.
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
