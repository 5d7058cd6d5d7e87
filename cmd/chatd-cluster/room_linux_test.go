package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/reto10/chat/test/wstest"
)

// A node that cannot write its history, as on a full disk, is not ready. It is ready again
// when there is room. The test limits the size of the process's files, so that it needs no
// small disk.
func TestReadyzIsRedWhileTheDiskIsFull(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "history.db")
	d := program(t).Start(t, []string{"CHATD_HISTORY=sqlite:" + file}, "-plaintext")
	admin := d.Token("admin")
	ready := func() (int, string) { return d.Request(http.MethodGet, "/readyz", "", "") }
	publish := func() int {
		status, _ := d.Request(http.MethodPost, "/messages", admin, `{"content":"`+strings.Repeat("x", 10_000)+`"}`)
		return status
	}
	limit := func(bytes string) {
		t.Helper()
		out, err := exec.Command("prlimit", "--pid", strconv.Itoa(d.Pid()), "--fsize="+bytes+":").CombinedOutput()
		if err != nil {
			t.Fatalf("prlimit: %v\n%s", err, out)
		}
	}
	if status := publish(); status != http.StatusCreated {
		t.Fatalf("publishing: status %d", status)
	}
	if status, body := ready(); status != http.StatusOK {
		t.Fatalf("%d %s with room", status, body)
	}
	wal, err := os.Stat(file + "-wal") // what is stored goes to its end
	if err != nil {
		t.Fatal(err)
	}
	limit(strconv.FormatInt(wal.Size(), 10))
	wstest.Eventually(t, "publishing to fail", func() bool { return publish() == http.StatusServiceUnavailable })
	wstest.Eventually(t, "/readyz to turn red", func() bool {
		status, body := ready()
		return status == http.StatusServiceUnavailable && strings.Contains(body, "history")
	})
	limit("unlimited")
	wstest.Eventually(t, "/readyz to turn green", func() bool {
		status, _ := ready()
		return status == http.StatusOK
	})
	if status := publish(); status != http.StatusCreated {
		t.Errorf("publishing again: status %d", status)
	}
}
