package apitest

import (
	"os"
	"testing"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
)

// The programs under test.
var chatd, cluster chatdtest.Program

// linked makes chatd's code a part of this binary. It does not run, but go test compares the
// binary to decide whether a cached result is still valid.
var linked any

func TestMain(m *testing.M) {
	linked = daemon.Main
	os.Exit(chatdtest.Main("../..", map[string]*chatdtest.Program{"chatd": &chatd, "chatd-cluster": &cluster}, m))
}
