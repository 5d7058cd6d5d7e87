package chat

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/reto10/chat/internal/jwt"
)

// MinSecret is the length in bytes of the shortest secret that [NewHS256] accepts: the
// length of the hash (RFC 7518 section 3.2).
const MinSecret = 32

// defaultTokenTTL is how long issued tokens are valid, see [WithTokenTTL].
const defaultTokenTTL = 15 * time.Minute

// HS256Option is an option of [NewHS256]: [WithTokenTTL] or a [TokenOption].
type HS256Option interface {
	applyHS256(*HS256) error
}

// hs256Option implements [HS256Option].
type hs256Option func(*HS256) error

func (o hs256Option) applyHS256(h *HS256) error { return o(h) }

// WithTokenTTL sets how long issued tokens are valid: more than zero, rounded up to whole
// seconds. The default is 15 minutes.
func WithTokenTTL(ttl time.Duration) HS256Option {
	return hs256Option(func(h *HS256) error {
		if ttl <= 0 {
			return fmt.Errorf("%w: WithTokenTTL: %v is not more than zero", ErrInvalid, ttl)
		}
		h.ttl = ttl
		return nil
	})
}

// HS256 issues and authenticates tokens that are signed with one shared secret (HMAC with
// SHA-256, RFC 7518 section 3.2). It is safe for concurrent use.
type HS256 struct {
	rules    jwt.Rules
	ttl      time.Duration
	secret   []byte
	key      *jwt.Secret
	verified jwt.Cache
}

var _ Authenticator = (*HS256)(nil)

// NewHS256 returns an [HS256] with a copy of this secret: at least [MinSecret] random
// bytes. It rejects a public key in PEM form, which everyone has; [NewJWKS] is for public
// keys. All errors wrap [ErrInvalid].
func NewHS256(secret []byte, opts ...HS256Option) (*HS256, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("%w: the secret has %d bytes, at least %d are needed", ErrInvalid, len(secret), MinSecret)
	}
	if block, _ := pem.Decode(secret); block != nil &&
		(strings.HasSuffix(block.Type, "PUBLIC KEY") || strings.HasSuffix(block.Type, "CERTIFICATE")) {
		return nil, fmt.Errorf("%w: the secret is a public key", ErrInvalid)
	}
	h := &HS256{rules: defaultRules, ttl: defaultTokenTTL, secret: bytes.Clone(secret), key: jwt.NewSecret(secret)}
	for _, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("%w: an HS256Option is nil", ErrInvalid)
		}
		if err := opt.applyHS256(h); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// Format implements [fmt.Formatter]. No verb prints the secret.
func (h *HS256) Format(f fmt.State, _ rune) { io.WriteString(f, "HS256(REDACTED)") }

// Authenticate implements [Authenticator]. A valid token is a JWT (RFC 7519) in compact
// form of at most 8 KiB, signed with HS256 and the secret. Its claims are:
//
//   - "sub": a valid user name, see [ValidUsername].
//   - "exp": required and in the future. There is no tolerance for different clocks.
//   - "nbf": optional, at most 30 seconds in the future, for an issuer whose clock is ahead.
//   - "iat": optional and not compared (RFC 7519 section 4.1.6).
//   - the role: 1 to 128 printable bytes; [RoleUser] if absent.
//   - "iss" and "aud": as [WithIssuer] and [WithAudience] require.
//
// A repeated token is not verified again: an HS256 remembers up to 4,096 tokens that
// verified, by their SHA-256. It checks "exp" and "nbf" with each call.
//
// All errors wrap [ErrUnauthenticated].
func (h *HS256) Authenticate(_ context.Context, token string) (Identity, error) {
	return authenticate(token, h.rules, h.cache, h.key.Verify)
}

func (h *HS256) cache() *jwt.Cache { return &h.verified }

// Issue returns a new token for u with the claims "sub", "iat", "exp", a random "jti",
// the role ([RoleUser] if u has none) and, if configured, "iss" and "aud". The error wraps
// [ErrInvalid] if the name or the role is not valid, or if the token is longer than
// Authenticate accepts.
func (h *HS256) Issue(u User) (Token, error) {
	if !ValidUsername(u.Name) {
		return Token{}, fmt.Errorf("%w: issuing a token: user name", ErrInvalid)
	}
	if u.Role == "" {
		u.Role = RoleUser
	}
	if !validRole(u.Role) {
		return Token{}, fmt.Errorf("%w: issuing a token: role", ErrInvalid)
	}
	now := time.Now()
	expires := now.Add(h.ttl)
	if whole := expires.Truncate(time.Second); whole.Before(expires) {
		expires = whole.Add(time.Second)
	}
	signed, err := jwt.Sign(h.secret, h.rules, jwt.Claims{Subject: u.Name, Role: u.Role, Expires: expires}, now)
	switch {
	case errors.Is(err, jwt.ErrTooLong):
		return Token{}, fmt.Errorf("%w: issuing a token: %w", ErrInvalid, err)
	case err != nil:
		return Token{}, fmt.Errorf("chat: issuing a token: %w", err)
	}
	return Token{AccessToken: signed, ExpiresIn: h.ttl}, nil
}
