package daemon

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// File is one that a setting names and that the server believes, or that holds
// something secret.
type File struct {
	What   string // for people: "the TLS key"
	Path   string
	Secret bool // nobody else may read it
}

// Warnings says what others than the server's own user and root may do to a file
// that they should not, by its permissions and those of the directory that it is
// in. A link is followed. One that cannot be looked at is no warning: reading it
// fails, and says why.
func (f File) Warnings() (found []Warning) {
	if runtime.GOOS == "windows" {
		return nil // its permissions are others
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
	// In a sticky directory, as /tmp is, only its owner replaces a file.
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err == nil && info.Mode()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		warn("others on this machine can replace "+f.What+", since they can write its directory", info, "directory", dir)
	}
	return found
}
