package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reto10/chat"
)

// A program that rewrites the users file leaves it empty for a moment. The users stay.
func TestAUsersFileWithoutUsersChangesNothing(t *testing.T) {
	hash, err := chat.HashPassword("secreto")
	if err != nil {
		t.Fatal(err)
	}
	line := "ana:" + hash + "\n"
	path := filepath.Join(t.TempDir(), "users")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	users := new(chat.Users)
	write(line)
	if err := loadUsers(users, path); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":                   "",
		"comments alone":          "# ana\n\n",
		"a byte order mark alone": "\ufeff",
		"half a line":             line[:40],
		"more than users":         line + "eva\n",
	} {
		write(text)
		if err := loadUsers(users, path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that names the file", name, err)
		}
		if _, err := users.Verify(t.Context(), "ana", "secreto"); err != nil || users.Len() != 1 {
			t.Errorf("%s: ana is gone: %v, %d users", name, err, users.Len())
		}
	}
	write("eva" + line[3:])
	if err := loadUsers(users, path); err != nil {
		t.Fatal(err)
	}
	if _, err := users.Verify(t.Context(), "ana", "secreto"); err == nil {
		t.Error("ana can still log in, but is no longer in the file")
	}
}
