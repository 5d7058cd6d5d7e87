package row

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
)

func TestRedisEndsWithItsInput(t *testing.T) {
	if err := redisServer.Installed(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r, err := newLab(t).startRedis(ctx)
	if err != nil {
		t.Fatal(err)
	}
	info, err := r.info(ctx)
	if err != nil {
		t.Error(err)
	}
	if info.cpu() <= 0 || info.calls("info") < 1 || info.calls("xrange") != 0 {
		t.Errorf("CPU %v, calls of info %v, of xrange %v; want more than 0, 1 or more, 0",
			info.cpu(), info.calls("info"), info.calls("xrange"))
	}
	r.stop()
	if conn, err := net.Dial("tcp", r.addr); err == nil {
		_ = conn.Close()
		t.Error("Redis still listens after it was stopped")
	}
	if _, err := os.Stat(r.dir); !os.IsNotExist(err) {
		t.Errorf("its directory is left: %v", err)
	}
}

func TestMissingProgramNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := redisServer.Installed()
	if err == nil || !strings.Contains(err.Error(), "redis-server") || strings.Contains(err.Error(), "\n") {
		t.Errorf("without redis-server: %v, want one line that names it", err)
	}
}
