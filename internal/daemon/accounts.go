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

// maxSecret is far more than a key can use, and keeps a slip such as
// -secret-file /dev/zero from reading for ever.
const maxSecret = 4096

// account is a user that was made at start, with the password that is shown once.
type account struct {
	name, role, password string
}

// inventAccounts makes an admin and a user with random passwords.
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

// randomPassword is 80 bits in letters and digits that no shell takes for
// anything else.
func randomPassword() string {
	return strings.ToLower(rand.Text()[:16])
}

// loadUsers replaces users by those of a file, or on an error nothing. A file without
// a user is one: it lets nobody in, and is what a program that writes it anew leaves for
// a moment.
func loadUsers(users *chat.Users, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading users: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var text bytes.Buffer
	loaded, err := chat.ParseUsers(io.TeeReader(f, &text))
	if err == nil && loaded.Len() == 0 {
		err = errors.New("there is no user in it")
	}
	if err == nil {
		err = users.Load(&text)
	}
	if err != nil {
		return fmt.Errorf("reading users from %s: %w", path, err)
	}
	return nil
}

// readSecret returns the key in a file, less one newline at its end.
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
		return nil, fmt.Errorf("reading the secret from %s: over %d bytes", path, maxSecret)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(secret), "\n"), "\r")
	return []byte(text), nil
}

// inventSecret makes a key that ends with this process.
func inventSecret() []byte {
	secret := make([]byte, 2*chat.MinSecret)
	rand.Read(secret)
	return secret
}
