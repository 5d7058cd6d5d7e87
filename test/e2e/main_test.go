package e2e_test

import (
	"testing"

	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
