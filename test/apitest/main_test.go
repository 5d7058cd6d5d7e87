package apitest

import (
	"os"
	"testing"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
)

// The programs under test.
var chatd, cluster chatdtest.Program

// linked makes the code of chatd a part of this binary too. It is not run here; but
// go test looks at the binary to tell whether a result it has kept still holds.
var linked any

func TestMain(m *testing.M) {
	linked = daemon.Main
	os.Exit(chatdtest.Main("../..", map[string]*chatdtest.Program{"chatd": &chatd, "chatd-cluster": &cluster}, m))
}
