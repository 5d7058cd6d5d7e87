package main

import (
	"os"
	"syscall"
	"unsafe"
)

// unread waits until the other end of the pipe f is closed (poll(2)), for example by head.
// The next write could be much later. For a file, and after an error, unread never returns;
// the caller's goroutine ends with the process.
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
