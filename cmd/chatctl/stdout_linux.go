package main

import (
	"os"
	"syscall"
	"unsafe"
)

// unread waits until nobody reads f any more, as when head has what it wanted: a
// pipe's other end is closed (poll(2)), which writing would tell too late. Of a
// file, and where it cannot be told, it never returns; the caller's goroutine ends
// with the process.
func unread(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		select {}
	}
	_ = conn.Control(func(fd uintptr) {
		for {
			p := struct {
				fd              int32
				events, revents int16
			}{fd: int32(fd)}
			_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, 0, 0, 0, 0)
			switch {
			case errno == 0 && p.revents != 0:
				return
			case errno != 0 && errno != syscall.EINTR:
				select {}
			}
		}
	})
}
