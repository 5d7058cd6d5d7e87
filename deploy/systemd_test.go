package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat/test/chatdtest"
)

// settings are what a unit says of each key, in order.
func settings(unit string) map[string][]string {
	found := make(map[string][]string)
	for _, m := range regexp.MustCompile(`(?m)^([A-Za-z]+)=(.*)$`).FindAllStringSubmatch(unit, -1) {
		found[m[1]] = append(found[m[1]], m[2])
	}
	return found
}

// unitBytes reads a size as systemd does.
func unitBytes(t *testing.T, size string) int64 {
	t.Helper()
	unit := map[byte]int64{'M': 1 << 20, 'G': 1 << 30}[size[len(size)-1]]
	n, err := strconv.ParseInt(size[:len(size)-1], 10, 64)
	if err != nil || unit == 0 {
		t.Fatalf("a size of %q", size)
	}
	return n * unit
}

func TestTheUnitIsOneForSystemd(t *testing.T) {
	analyze := chatdtest.Needs(t, "systemd-analyze")
	unit := replace(t, read(t, "chatd.service"), "/usr/local/bin/chatd-cluster", program.Path)
	path := filepath.Join(t.TempDir(), "chatd.service")
	if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "chatd.service") { // and nothing of this machine's own units
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// Of 100, which is no protection at all.
	if out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", "--threshold=20", path).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

func TestTheUnitFitsChatdCluster(t *testing.T) {
	unit := read(t, "chatd.service")
	s := settings(unit)
	env := make(map[string]string)
	var names []string
	for _, line := range s["Environment"] {
		for pair := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
			names = append(names, name)
		}
	}
	checkVariables(t, names)
	stop := duration(t, s["TimeoutStopSec"][0]+"s")
	if drain := duration(t, env["CHATD_DRAIN"]); stop < drain+5*time.Second {
		t.Errorf("drains for %v and is killed after %v", drain, stop)
	}
	for key, want := range map[string]string{
		"Restart": "always", "RestartPreventExitStatus": "2", "LimitNOFILE": "200000", "MemorySwapMax": "0", "TasksMax": "512",
	} {
		if !slices.Equal(s[key], []string{want}) {
			t.Errorf("%s=%s, want %s", key, s[key], want)
		}
	}
	high, most := unitBytes(t, s["MemoryHigh"][0]), unitBytes(t, s["MemoryMax"][0])
	checkMemory(t, env["GOMEMLIMIT"], most)
	if high <= most/2 || high >= most {
		t.Errorf("the kernel takes memory back from %d bytes on, of %d", high, most)
	}
	loaded := make(map[string]bool)
	for _, line := range s["LoadCredential"] {
		name, _, _ := strings.Cut(line, ":")
		loaded["%d/"+name] = true
	}
	for name, value := range env {
		if strings.HasPrefix(value, "%d/") && !loaded[value] {
			t.Errorf("%s=%s is not loaded", name, value)
		}
	}
	if len(loaded) != 4 {
		t.Errorf("%d files are loaded", len(loaded))
	}
}

// The unit's variables are run with as they are, but for its port.
func TestTheUnitRuns(t *testing.T) {
	cert, key, _ := chatdtest.Certificate(t)
	state := t.TempDir()
	unit := replace(t, read(t, "chatd.service"),
		"%d/users", chatdtest.WriteFile(t, "users", chatdtest.Users),
		"%d/secret", chatdtest.WriteFile(t, "secret", chatdtest.Secret),
		"%d/cert.pem", cert, "%d/key.pem", key,
		"%S/chatd", state, "CHATD_ADDR=:443", "CHATD_ADDR=127.0.0.1:0", "127.0.0.1:6060", "127.0.0.1:0")
	var env []string
	for _, line := range settings(unit)["Environment"] {
		env = append(env, strings.Fields(line)...)
	}
	d := program.Start(t, env)
	if !strings.HasPrefix(d.URL, "https://") {
		t.Errorf("listens on %s", d.URL)
	}
	if status, body := d.Request("POST", "/messages", d.Token("admin"), `{"content":"hello"}`); status != 201 {
		t.Errorf("posting: %d %s", status, body)
	}
	if _, err := os.Stat(filepath.Join(state, "history.db")); err != nil {
		t.Error(err)
	}
}
