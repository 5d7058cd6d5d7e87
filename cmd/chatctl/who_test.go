package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/wstest"
)

func TestWhoListsWhoIsConnected(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	if got := d.admin("who"); got != "nobody is connected\n" {
		t.Errorf("nobody: %q", got)
	}
	d.tail("user", "ops", "-channel", "ops")
	d.tail("admin", "")
	d.tail("admin", "")
	wstest.Eventually(t, "both sockets", func() bool { return strings.Contains(d.admin("who"), "  2  ") })
	want := regexp.MustCompile(`^USER   ROLE   SOCKETS  SINCE
admin  admin  2        \d{4}-\d\d-\d\d \d\d:\d\d:\d\d
user   user   1        \d{4}-\d\d-\d\d \d\d:\d\d:\d\d
$`)
	if got := d.admin("who"); !want.MatchString(got) {
		t.Errorf("it prints\n%s", got)
	}
	if got := d.admin("who", "-channel", "ops"); strings.Contains(got, "admin") || !strings.Contains(got, "\nuser ") {
		t.Errorf("of a channel it prints\n%s", got)
	}

	type user struct {
		Username, Role, Since string
		Connections           int
	}
	var got struct {
		Count int
		Users []user
	}
	if err := json.Unmarshal([]byte(d.admin("who", "-json")), &got); err != nil {
		t.Fatal(err)
	}
	for i, u := range got.Users {
		if !strings.HasSuffix(u.Since, "Z") {
			t.Errorf("since %q", u.Since)
		}
		got.Users[i].Since = ""
	}
	if diff := cmp.Diff([]user{{"admin", "admin", "", 2}, {"user", "user", "", 1}}, got.Users); diff != "" || got.Count != 2 {
		t.Errorf("count %d, users (-want +got):\n%s", got.Count, diff)
	}
}

func TestKickSaysHowManySocketsWereClosed(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	if got, want := d.admin("kick", "user"), "user was not connected: nothing to close\n"; got != want {
		t.Errorf("nobody there: %q", got)
	}
	one := d.tail("user", "")
	if got, want := d.admin("kick", "user"), "closed the socket of user\n"; got != want {
		t.Errorf("one: %q", got)
	}
	one.ExitCode()
	d.tail("user", "")
	d.tail("user", "")
	wstest.Eventually(t, "both sockets", func() bool { return strings.Contains(d.admin("who"), "  2  ") })
	if got, want := d.admin("kick", "user"), "closed 2 sockets of user\n"; got != want {
		t.Errorf("two: %q", got)
	}
	if got := d.admin("kick", "no such"); !strings.HasPrefix(got, `"no such" was not connected`) {
		t.Errorf("a name of two words: %q", got)
	}
}
