package chat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/reto10/chat/internal/password"
)

// Users are people with passwords, read from a file. It is safe for concurrent
// use, also while it is loaded anew. The zero Users knows nobody.
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
// Without a role it is [RoleUser]. Blank lines and lines that begin with # are
// skipped; lines are at most 1,024 bytes and may end in CRLF. Names are as
// [ValidUsername] says, without a colon, and come once; hashes are $2a$, $2b$ or
// $2y$ with a cost of 4 to 16. One of a password over 72 bytes cannot be told from
// others: htpasswd cuts the password off, and here it is refused when it is used, with an
// error that says so. [HashPassword] makes no such hash. The error wraps [ErrInvalid] or the reader's, and
// names the line and what is wrong with it, but quotes nothing.
func ParseUsers(r io.Reader) (*Users, error) {
	u := new(Users)
	if err := u.Load(r); err != nil {
		return nil, err
	}
	return u, nil
}

// Load replaces all users by those that it reads, as [ParseUsers] does. On an
// error everything stays as it was.
func (u *Users) Load(r io.Reader) error {
	users, err := password.Parse(r, ValidUsername)
	if err != nil {
		return fmt.Errorf("%w: users: %w", ErrInvalid, err)
	}
	u.current.Store(users)
	return nil
}

// Len is how many users there are.
func (u *Users) Len() int {
	if users := u.current.Load(); users != nil {
		return users.Len()
	}
	return 0
}

// Verify returns the user with this name and password. The error wraps
// [ErrUnauthenticated] when there is none, with the same text and after the same
// work whether or not there is such a user; the text also says of a password over 72
// bytes that nobody's has so many. It is [ErrBusy] when too many checks
// wait already, and wraps [ErrUnavailable] and ctx's error when ctx ends first.
// All checks of the process together run on half of the cores at the most.
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
		return User{}, fmt.Errorf("%w: wrong user name or password: %w", ErrUnauthenticated, password.Possible(secret))
	case !ok:
		return User{}, fmt.Errorf("%w: wrong user name or password", ErrUnauthenticated)
	case role == "":
		role = RoleUser
	}
	return User{Name: username, Role: role}, nil
}

// HashPassword returns the bcrypt hash of password for a users file, with cost
// [DefaultBcryptCost]. The error wraps [ErrInvalid] when the password is empty,
// over 72 bytes (bcrypt would ignore the rest) or has a NUL in it, and is
// [ErrBusy] when too many wait for their turn.
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

// PasswordLogin is [Users] who get their tokens from an [HS256]: an
// [Authenticator] and a [LoginProvider]. A user who is no longer in the file
// gets no new token; the last one holds until it expires. It is safe for concurrent
// use.
type PasswordLogin struct {
	users  *Users
	signer *HS256
}

var (
	_ Authenticator = (*PasswordLogin)(nil)
	_ LoginProvider = (*PasswordLogin)(nil)
)

// NewPasswordLogin joins the two, neither of them nil.
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
