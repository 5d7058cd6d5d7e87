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

// maxSecret bounds a secret file in bytes, so that a mistake such as
// -secret-file /dev/zero ends.
const maxSecret = 4096

// account is a user created at start. Its password is printed once.
type account struct {
	name, role, password string
}

// inventAccounts creates an admin and an ordinary user with random passwords.
func inventAccounts() ([]account, *chat.Users, error) {
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

// randomPassword returns a password of 80 random bits, in letters and digits that need no
// quotes in a shell.
func randomPassword() string {
	return strings.ToLower(rand.Text()[:16])
}

// loadUsers replaces users with those of a file. On an error it changes nothing. A file
// without users is an error: it is what a program leaves for a moment while it rewrites the
// file.
func loadUsers(users *chat.Users, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading users: %w", err)
	}
	defer f.Close()
	var text bytes.Buffer
	loaded, err := chat.ParseUsers(io.TeeReader(f, &text))
	if err == nil && loaded.Len() == 0 {
		err = errors.New("it contains no user")
	}
	if err == nil {
		err = users.Load(&text)
	}
	if err != nil {
		return fmt.Errorf("reading users from %s: %w", path, err)
	}
	return nil
}

// readSecret returns the key in a file, without one newline at its end.
func readSecret(path string) (secret []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	defer f.Close()
	secret, err = io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	if len(secret) > maxSecret {
		return nil, fmt.Errorf("reading the secret from %s: over %d bytes", path, maxSecret)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(secret), "\n"), "\r")
	return []byte(text), nil
}

// inventSecret returns a random key, which no later process knows.
func inventSecret() []byte {
	secret := make([]byte, 2*chat.MinSecret)
	rand.Read(secret)
	return secret
}
