package daemon

import (
	"testing"

	"github.com/reto10/chat/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
