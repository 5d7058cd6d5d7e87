package daemon

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// File is a file that a setting names. The server trusts its content, or keeps it secret.
type File struct {
	What   string // its name in warnings: "the TLS key"
	Path   string
	Secret bool // others must not read it
}

// Warnings returns what other users of this machine may do to the file and should not,
// by the permissions of the file and of its directory. Links are followed. A file that
// cannot be inspected gives no warning: reading it will fail with the reason.
func (f File) Warnings() (found []Warning) {
	if runtime.GOOS == "windows" {
		return nil // has other permissions
	}
	path, err := filepath.EvalSymlinks(f.Path)
	if err != nil {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
		return nil
	}
	warn := func(msg string, info fs.FileInfo, args ...any) {
		args = append([]any{"file", f.Path}, args...)
		found = append(found, Warning{msg, append(args, "mode", info.Mode().String())})
	}
	if f.Secret && info.Mode()&0o005 != 0 {
		warn("everybody on this machine can read "+f.What, info)
	}
	if info.Mode()&0o022 != 0 {
		warn("others on this machine can write "+f.What, info)
	}
	if uid, other := otherOwner(info); other {
		warn("another user of this machine owns "+f.What+" and can write it", info, "uid", uid)
	}
	if info.IsDir() {
		return found
	}
	// In a sticky directory, such as /tmp, only the owner of a file can replace it.
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err == nil && info.Mode()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		warn("others on this machine can replace "+f.What+", since they can write its directory", info, "directory", dir)
	}
	return found
}
