package wsconn_test

import (
	"math/bits"
	"testing"

	"github.com/reto10/chat/internal/wsconn"
)

// A server has one Conn for each socket. The runtime's next size class above 320 bytes has 352.
func TestAConnKeepsToItsSizeClass(t *testing.T) {
	if bits.UintSize == 64 && wsconn.ConnSize > 320 {
		t.Errorf("a Conn has %d bytes, want at most 320", wsconn.ConnSize)
	}
}
