package daemon

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/reto10/chat"
)

// maxSecret bounds the size of a secret file, in bytes. It is more than any key can use,
// and ends the reading of a file such as /dev/zero.
const maxSecret = 4096

// account is a user that was made at start. The password is printed once.
type account struct {
	name, role, password string
}

// makeAccounts makes an admin and a user with random passwords.
func makeAccounts() ([]account, *chat.Users, error) {
	accounts := []account{
		{"admin", chat.RoleAdmin, randomPassword()},
		{"user", chat.RoleUser, randomPassword()},
	}
	var file strings.Builder
	for _, a := range accounts {
		hash, err := chat.HashPassword(a.password)
		if err != nil {
			return nil, nil, fmt.Errorf("making the user %s: %w", a.name, err)
		}
		fmt.Fprintf(&file, "%s:%s:%s\n", a.name, hash, a.role)
	}
	users, err := chat.ParseUsers(strings.NewReader(file.String()))
	if err != nil {
		return nil, nil, fmt.Errorf("making users: %w", err)
	}
	return accounts, users, nil
}

// randomPassword returns 80 random bits as letters and digits, which need no quoting in a
// shell.
func randomPassword() string {
	return strings.ToLower(rand.Text()[:16])
}

// loadUsers replaces users by those in a file. On an error they stay as they were. A file
// without users is an error: it would lock everybody out, and a program that rewrites the
// file leaves it empty for a moment.
func loadUsers(users *chat.Users, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading users: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var text bytes.Buffer
	loaded, err := chat.ParseUsers(io.TeeReader(f, &text))
	if err == nil && loaded.Len() == 0 {
		err = errors.New("the file has no users")
	}
	if err == nil {
		err = users.Load(&text)
	}
	if err != nil {
		return fmt.Errorf("reading users from %s: %w", path, err)
	}
	return nil
}

// readSecret returns the content of a file without one newline at its end.
func readSecret(path string) (secret []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	secret, err = io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	if len(secret) > maxSecret {
		return nil, fmt.Errorf("reading the secret from %s: larger than %d bytes", path, maxSecret)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(secret), "\n"), "\r")
	return []byte(text), nil
}

// makeSecret returns a random key, for this process only.
func makeSecret() []byte {
	secret := make([]byte, 2*chat.MinSecret)
	rand.Read(secret)
	return secret
}
