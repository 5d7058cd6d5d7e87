//go:build !unix

package daemon

import "io/fs"

// otherOwner knows of no owners here.
func otherOwner(fs.FileInfo) (uid int, other bool) { return 0, false }

// openFiles is unknown here.
func openFiles() int { return 0 }
