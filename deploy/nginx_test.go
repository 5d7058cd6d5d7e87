package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
)

// startNginx runs nginx.conf.
func startNginx(t *testing.T, s setup) *proxy {
	t.Helper()
	nginx := chatdtest.Needs(t, "nginx")
	dir, addr := t.TempDir(), chatdtest.FreeAddr(t)
	access, errors := filepath.Join(dir, "access.log"), filepath.Join(dir, "error.log")
	conf := replace(t, read(t, "nginx.conf"),
		"server chatd1:8080", "server "+s.nodes[0],
		"server chatd2:8080", "server "+s.nodes[1],
		"server chatd3:8080", "server "+s.nodes[2],
		"listen 443 ssl", "listen "+addr+" ssl",
		"/etc/nginx/tls/cert.pem", s.cert,
		"/etc/nginx/tls/key.pem", s.key,
		"/run/nginx.pid", filepath.Join(dir, "nginx.pid"),
		"/dev/stdout", access,
		"/dev/stderr", errors,
		"worker_rlimit_nofile 65536;", "", // may not be had here
		"worker_connections 32768;", "worker_connections 256;",
		"timeout 75s", "timeout "+s.timeout,
	)
	conf = replace(t, conf, s.edits...)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-p", dir, "-c", path, "-e", errors, "-g", "daemon off;"}
	if out, err := exec.Command(nginx, append([]string{"-t"}, args...)...).CombinedOutput(); err != nil ||
		strings.Contains(string(out), "[warn]") {
		t.Fatalf("nginx -t: %v\n%s", err, out)
	}
	cmd := exec.Command(nginx, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was asked to
	})
	return newProxy(t, proxy{
		addr:   addr,
		access: func() string { return read(t, access) },
		errors: func() string { return read(t, errors) },
		reload: func() error { return cmd.Process.Signal(syscall.SIGHUP) }, // as nginx -s reload
	})
}
