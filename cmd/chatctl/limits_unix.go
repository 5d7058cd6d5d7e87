//go:build unix

package main

import (
	"fmt"
	"syscall"
	"time"
)

// sparePlaces are open files beside those of the sockets: stdin and its like, the
// publisher, what the runtime waits with, names being looked up.
const sparePlaces = 64

// checkOpenFiles says why so many sockets cannot be open. Package os has raised the
// limit as far as it may be.
func checkOpenFiles(sockets int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil // then it is found out by trying
	}
	if need := uint64(sockets + sparePlaces); need > uint64(limit.Cur) {
		return fmt.Errorf("%d sockets need %d open files, and this process may have %d: raise the limit (ulimit -Hn, LimitNOFILE=), for the server, too",
			sockets, need, limit.Cur)
	}
	return nil
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
