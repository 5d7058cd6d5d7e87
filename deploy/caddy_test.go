package deploy_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
)

// startCaddy runs the Caddyfile.
func startCaddy(t *testing.T, s setup) *proxy {
	t.Helper()
	caddy := chatdtest.Needs(t, "caddy")
	dir, addr, admin := t.TempDir(), chatdtest.FreeAddr(t), chatdtest.FreeAddr(t)
	access, errors := filepath.Join(dir, "access.log"), filepath.Join(dir, "error.log")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, "Caddyfile")
	path := filepath.Join(dir, "Caddyfile")
	// As Caddy itself would write it.
	if out, err := exec.Command(caddy, "fmt", "Caddyfile").Output(); err != nil || string(out) != text {
		t.Errorf("caddy fmt: %v\n%s", err, out)
	}
	conf := replace(t, text,
		"chatd1:8080 chatd2:8080 chatd3:8080", s.nodes[0]+" "+s.nodes[1]+" "+s.nodes[2],
		"chat.example.com {", fmt.Sprintf("https://127.0.0.1:%s {\n\tbind 127.0.0.1\n\ttls %s %s", port, s.cert, s.key),
		"admin localhost:2019", "admin "+admin+"\n\tauto_https disable_redirects", // port 80 may not be had here
		"output stdout", "output file "+access,
		"output stderr", "output file "+errors,
		"_timeout 75s", "_timeout "+s.timeout,
		"read_body 30s", "read_body "+s.timeout, // which are to end with the upgrade
		"write 60s", "write "+s.timeout,
	)
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(caddy, append(args, "--config", path, "--adapter", "caddyfile")...)
		cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		return cmd
	}
	run := command("run")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = run.Process.Signal(syscall.SIGTERM)
		_ = run.Wait() // it was asked to
	})
	return newProxy(t, proxy{
		addr:   addr,
		access: func() string { return read(t, access) },
		errors: func() string { return read(t, errors) },
		reload: func() error {
			if out, err := command("reload", "--force").CombinedOutput(); err != nil {
				return fmt.Errorf("caddy reload: %w\n%s", err, out)
			}
			return nil
		},
	})
}
