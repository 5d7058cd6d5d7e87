//go:build unix

package daemon

import (
	"io/fs"
	"os"
	"syscall"
)

// otherOwner returns the owner of a file, and whether that is neither root nor the user
// of this process.
func otherOwner(info fs.FileInfo) (uid int, other bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	uid = int(stat.Uid)
	return uid, uid != 0 && uid != os.Geteuid()
}

// openFiles returns how many files this process may have open, or 0 when that is unknown.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 0
	}
	return int(limit.Cur)
}
