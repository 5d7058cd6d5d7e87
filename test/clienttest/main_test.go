package clienttest

import (
	"os"
	"testing"
	"time"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
)

const (
	// patience is how long a test waits for something that must come.
	patience = chatdtest.Patience
	// lifetime bounds every process, whatever a test does with it.
	lifetime = 3 * time.Minute
	// checkout is the path of the repository.
	checkout = "../.."
)

// program is the chatd under test.
var program chatdtest.Program

// linked makes chatd's code a part of this binary. It does not run, but go test compares the
// binary to decide whether a cached result is still valid.
var linked any

func TestMain(m *testing.M) {
	linked = daemon.Main
	os.Exit(chatdtest.Main(checkout, map[string]*chatdtest.Program{"chatd": &program}, m))
}
