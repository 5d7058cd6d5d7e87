//go:build !unix

package daemon

import "io/fs"

// otherOwner always reports false: the owner is unknown here.
func otherOwner(fs.FileInfo) (uid int, other bool) { return 0, false }

// openFiles returns 0: the limit is unknown here.
func openFiles() int { return 0 }
