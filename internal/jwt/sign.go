package jwt

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

// Sign returns a new token in compact form, signed with HS256 and the secret. Besides
// the claims it contains "iat", a random "jti" and, where the rules name them, "iss" and
// "aud". The error wraps [ErrTooLong] if [Parse] would reject the token for its length.
func Sign(secret []byte, rules Rules, claims Claims, now time.Time) (string, error) {
	b := jwt.NewBuilder().
		Subject(claims.Subject).
		Claim(rules.Role, claims.Role).
		IssuedAt(now).
		Expiration(claims.Expires).
		JwtID(rand.Text())
	if rules.Issuer != "" {
		b.Issuer(rules.Issuer)
	}
	if rules.Audience != "" {
		b.Audience([]string{rules.Audience})
	}
	t, err := b.Build()
	if err != nil {
		return "", err
	}
	signed, err := jwt.Sign(t, jwt.WithKey(jwa.HS256, secret))
	if err != nil {
		return "", err
	}
	if len(signed) > MaxLen {
		return "", fmt.Errorf("%w: over %d bytes", ErrTooLong, MaxLen)
	}
	return string(signed), nil
}
