//go:build unix

package main

import (
	"fmt"
	"syscall"
	"time"
)

// spareFiles is the number of open files for everything but the sockets: stdin, stdout, the
// publisher, the runtime's poller, name lookups.
const spareFiles = 64

// checkOpenFiles returns an error if this process may not open that many sockets. Package os
// has already raised the limit as far as possible.
func checkOpenFiles(sockets int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil // opening the sockets will show
	}
	if need := uint64(sockets + spareFiles); need > uint64(limit.Cur) {
		return fmt.Errorf("%d sockets need %d open files, and this process may have %d: raise the limit (ulimit -Hn, LimitNOFILE=), for the server, too",
			sockets, need, limit.Cur)
	}
	return nil
}

// cpuTime returns the CPU time that this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
