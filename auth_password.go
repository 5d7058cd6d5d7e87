package chat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/reto10/chat/internal/password"
)

// ErrBusy means that too many passwords are being checked now. It wraps
// [ErrUnavailable].
var ErrBusy = fmt.Errorf("%w: too many passwords are being checked", ErrUnavailable)

// Users is a set of users with passwords, read from a file. It is safe for concurrent use,
// also during [Users.Load]. The zero Users is empty.
type Users struct {
	current atomic.Pointer[password.Users]
}

// ParseUsers reads users, one a line, as "htpasswd -B" writes them, with an
// optional role:
//
//	# name:bcrypt-hash[:role]
//	ana:$2y$10$…:admin
//	bob:$2y$10$…
//
// The default role is [RoleUser]. Blank lines and lines that begin with # are skipped.
// Lines have at most 1,024 bytes and may end in CRLF. Each name appears once, is valid as
// [ValidUsername] says, and contains no colon. Hashes are $2a$, $2b$ or $2y$ with a cost of
// 4 to 16.
//
// htpasswd cuts passwords off after 72 bytes, which the hash does not show. The user of
// such a hash logs in with the first 72 bytes; [Users.Verify] rejects the longer password
// with an error that says so. [HashPassword] makes no such hash.
//
// The error wraps [ErrInvalid], and the reader's error if reading failed. It names the line
// and the fault and quotes nothing from the file.
func ParseUsers(r io.Reader) (*Users, error) {
	u := new(Users)
	if err := u.Load(r); err != nil {
		return nil, err
	}
	return u, nil
}

// Load replaces all users with those that it reads, see [ParseUsers]. On an error it
// changes nothing.
func (u *Users) Load(r io.Reader) error {
	users, err := password.Parse(r, ValidUsername)
	if err != nil {
		return fmt.Errorf("%w: users: %w", ErrInvalid, err)
	}
	u.current.Store(users)
	return nil
}

// Len returns the number of users.
func (u *Users) Len() int {
	if users := u.current.Load(); users != nil {
		return users.Len()
	}
	return 0
}

// Verify returns the user with this name and password.
//
// The error wraps [ErrUnauthenticated] if the name or the password is wrong. Its text and
// the work of the check are the same whether the user exists or not. For a password over
// 72 bytes the text says that no password is so long.
//
// The error is [ErrBusy] if too many checks already wait, and wraps [ErrUnavailable] and
// ctx's error if ctx ends first. All checks of the process together use at most half of
// the cores.
func (u *Users) Verify(ctx context.Context, username, secret string) (User, error) {
	users := u.current.Load()
	if users == nil {
		users = new(password.Users)
	}
	role, ok, err := users.Check(ctx, username, secret)
	switch {
	case errors.Is(err, password.ErrBusy):
		return User{}, ErrBusy
	case err != nil:
		return User{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case !ok && secret != "" && password.Possible(secret) != nil: // for any user
		return User{}, fmt.Errorf("%w: wrong username or password: %w", ErrUnauthenticated, password.Possible(secret))
	case !ok:
		return User{}, fmt.Errorf("%w: wrong username or password", ErrUnauthenticated)
	case role == "":
		role = RoleUser
	}
	return User{Name: username, Role: role}, nil
}

// HashPassword returns the bcrypt hash of a password for a users file. Its cost is 10, the
// least that OWASP's password storage advice allows: each login then takes about 50 ms of
// one core. The error wraps [ErrInvalid] if the password is empty, has more than 72 bytes
// (bcrypt would ignore the rest) or contains a NUL. It is [ErrBusy] if too many checks
// already wait.
func HashPassword(secret string) (string, error) {
	hash, err := password.Hash(secret)
	switch {
	case errors.Is(err, password.ErrPassword):
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	case errors.Is(err, password.ErrBusy):
		return "", ErrBusy
	case err != nil:
		return "", fmt.Errorf("chat: %w", err)
	}
	return hash, nil
}

// PasswordLogin issues tokens of an [HS256] to [Users]. It is an [Authenticator] and a
// [LoginProvider], and safe for concurrent use. A user who was removed from the users gets
// no new token; the last token stays valid until it expires.
type PasswordLogin struct {
	users  *Users
	signer *HS256
}

var (
	_ Authenticator = (*PasswordLogin)(nil)
	_ LoginProvider = (*PasswordLogin)(nil)
)

// NewPasswordLogin returns a [PasswordLogin]. Neither argument may be nil.
func NewPasswordLogin(users *Users, signer *HS256) *PasswordLogin {
	return &PasswordLogin{users, signer}
}

// Authenticate implements [Authenticator], see [HS256.Authenticate].
func (p *PasswordLogin) Authenticate(ctx context.Context, token string) (Identity, error) {
	return p.signer.Authenticate(ctx, token)
}

// Login implements [LoginProvider]. The errors are those of [Users.Verify].
func (p *PasswordLogin) Login(ctx context.Context, username, password string) (Token, error) {
	user, err := p.users.Verify(ctx, username, password)
	if err != nil {
		return Token{}, err
	}
	return p.signer.Issue(user)
}
