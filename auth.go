package chat

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/reto10/chat/internal/keyset"
	"github.com/reto10/chat/internal/password"
	"github.com/reto10/chat/internal/token"
)

const (
	// DefaultTokenTTL is how long an issued token holds unless [WithTokenTTL]
	// says otherwise.
	DefaultTokenTTL = 15 * time.Minute
	// MinSecret is the length in bytes of the shortest secret that [NewHS256]
	// takes: that of the hash (RFC 7518 section 3.2).
	MinSecret = 32
	// DefaultBcryptCost is the cost of [HashPassword], the least that OWASP's
	// password storage advice asks for: some 50 ms of one core for each login.
	DefaultBcryptCost = password.DefaultCost

	defaultRoleClaim = "role"
)

// ErrBusy means that too many passwords are being checked at this moment. It
// wraps [ErrUnavailable].
var ErrBusy = fmt.Errorf("%w: too many passwords are being checked", ErrUnavailable)

// Identity is what a token says: who somebody is and until when.
type Identity struct {
	User    User      // an empty role stands for RoleUser
	Expires time.Time // the token no longer holds at this moment; required
}

// Authenticator is the port behind which tokens are understood: a token in, who
// it is and until when out.
//
// An error that wraps [ErrUnauthenticated] means that the token does not hold,
// and its text may be shown to whoever sent it; it contains nothing of the
// token. Any other error means that it cannot be told now, and the client is
// asked to come back (503). Authenticate is called once for each request,
// connection and refresh. It must be safe for concurrent use.
//
// [HS256] and [JWKS] are two; an Authenticator that also is a [LoginProvider]
// gets a /login.
type Authenticator interface {
	// Authenticate says whose a token is, which comes from a client and may be
	// anything. ctx ends with the request, or after five seconds for a refresh.
	Authenticate(ctx context.Context, token string) (Identity, error)
}

// LoginProvider is what an [Authenticator] may be besides: a name and a password
// in, a token out. An error that wraps [ErrUnauthenticated] means that the pair
// is wrong; neither its text nor the time it takes may tell whether there is
// such a user. Any other error means that it cannot be told now. Login must be
// safe for concurrent use.
type LoginProvider interface {
	// Login returns a token that Authenticate takes, for a name and a password
	// as they came from the client, neither empty. How often one may try is
	// bounded before it is called.
	Login(ctx context.Context, username, password string) (Token, error)
}

// Token is a fresh token as a login answers it. Printed or logged it shows
// everything but the token itself.
type Token struct {
	AccessToken string        // what a client sends; a secret
	ExpiresIn   time.Duration // from the moment it was issued
}

// Format implements [fmt.Formatter] for every verb without the token.
func (t Token) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "Token(REDACTED, expires in %v)", t.ExpiresIn)
}

// LogValue implements [slog.LogValuer] without the token.
func (t Token) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(t)) }

// TokenOption sets up [NewHS256] and [NewJWKS]. One that means nothing to the
// constructor it is given to is an error, as is one with a senseless argument;
// these errors wrap [ErrInvalid].
type TokenOption func(*tokenConfig) error

type tokenConfig struct {
	rules  token.Rules
	ttl    time.Duration
	client *http.Client
	log    *slog.Logger

	issues  bool // tokens are made
	fetches bool // keys are fetched
}

func newTokenConfig(base tokenConfig, opts []TokenOption) (tokenConfig, error) {
	base.rules.Role = defaultRoleClaim
	base.ttl = DefaultTokenTTL
	base.log = slog.Default()
	for _, opt := range opts {
		if opt == nil {
			return tokenConfig{}, fmt.Errorf("%w: nil TokenOption", ErrInvalid)
		}
		if err := opt(&base); err != nil {
			return tokenConfig{}, err
		}
	}
	return base, nil
}

// WithIssuer makes "iss" count: tokens have to name this issuer exactly, and
// issued ones do. By default it is not looked at.
func WithIssuer(issuer string) TokenOption {
	return func(c *tokenConfig) error {
		if issuer == "" {
			return fmt.Errorf("%w: WithIssuer: empty", ErrInvalid)
		}
		c.rules.Issuer = issuer
		return nil
	}
}

// WithAudience makes "aud" count: tokens have to be for this audience, among
// others or alone, and issued ones are. By default it is not looked at; set it
// where the same provider signs tokens for other services too.
func WithAudience(audience string) TokenOption {
	return func(c *tokenConfig) error {
		if audience == "" {
			return fmt.Errorf("%w: WithAudience: empty", ErrInvalid)
		}
		c.rules.Audience = audience
		return nil
	}
}

// WithTokenTTL sets how long issued tokens hold, more than zero; tokens count in
// seconds, so part of one is rounded up. The default is [DefaultTokenTTL].
func WithTokenTTL(ttl time.Duration) TokenOption {
	return func(c *tokenConfig) error {
		if !c.issues {
			return fmt.Errorf("%w: WithTokenTTL: no tokens are issued here", ErrInvalid)
		}
		if ttl <= 0 {
			return fmt.Errorf("%w: WithTokenTTL: %v is not more than zero", ErrInvalid, ttl)
		}
		c.ttl = ttl
		return nil
	}
}

// WithRoleClaim names the claim that holds the role, a string. The default is
// "role".
func WithRoleClaim(name string) TokenOption {
	return func(c *tokenConfig) error {
		if name == "" {
			return fmt.Errorf("%w: WithRoleClaim: empty", ErrInvalid)
		}
		if slices.Contains([]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}, name) {
			return fmt.Errorf("%w: WithRoleClaim: %q means something else (RFC 7519 section 4.1)", ErrInvalid, name)
		}
		c.rules.Role = name
		return nil
	}
}

// WithHTTPClient sets the client that fetches a [JWKS]. The default is a plain
// one over [http.DefaultTransport].
func WithHTTPClient(client *http.Client) TokenOption {
	return func(c *tokenConfig) error {
		if !c.fetches {
			return fmt.Errorf("%w: WithHTTPClient: nothing is fetched here", ErrInvalid)
		}
		if client == nil {
			return fmt.Errorf("%w: WithHTTPClient: nil", ErrInvalid)
		}
		c.client = client
		return nil
	}
}

// WithJWKSLogger sets who is told when the keys of a [JWKS] cannot be fetched any more,
// at Warn, and when they can again, at Info. The default is [slog.Default].
func WithJWKSLogger(l *slog.Logger) TokenOption {
	return func(c *tokenConfig) error {
		if !c.fetches {
			return fmt.Errorf("%w: WithJWKSLogger: nothing is fetched here", ErrInvalid)
		}
		if l == nil {
			return fmt.Errorf("%w: WithJWKSLogger: nil", ErrInvalid)
		}
		c.log = l
		return nil
	}
}

// authenticate is what all tokens go through: read strictly, its claims held
// against the rules, its signature checked. Claims come first because they are
// cheap: an old token must not make us ask anybody for an old key.
func (c *tokenConfig) authenticate(s string, verify func(*token.JWS) error) (Identity, error) {
	t, err := token.Parse(s)
	if err != nil {
		return Identity{}, refused(err)
	}
	claims, err := t.Claims(c.rules, time.Now())
	if err != nil {
		return Identity{}, refused(err)
	}
	if !ValidUsername(claims.Subject) {
		return Identity{}, refused(token.ErrSubject)
	}
	if claims.Role == "" {
		claims.Role = RoleUser
	}
	if !validRole(claims.Role) {
		return Identity{}, refused(token.ErrRole)
	}
	if err := verify(t); err != nil {
		return Identity{}, refused(err)
	}
	return Identity{User: User{Name: claims.Subject, Role: claims.Role}, Expires: claims.Expires}, nil
}

// refused says in this package's terms why a token was not taken.
func refused(err error) error {
	if refusal := token.Refusal(""); errors.As(err, &refusal) {
		return fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	return fmt.Errorf("%w: checking a token: %w", ErrUnavailable, err)
}

// validRole reports whether a role is fit to be shown to others. It goes where
// user names go, so the same rule holds.
func validRole(role string) bool { return ValidUsername(role) }

// HS256 issues tokens and understands them, signed with one secret (HMAC with
// SHA-256, RFC 7518 section 3.2). It is safe for concurrent use.
type HS256 struct {
	config tokenConfig
	secret []byte
}

var _ Authenticator = (*HS256)(nil)

// NewHS256 returns an [HS256] with this secret, of which it keeps a copy: at
// least [MinSecret] random bytes. A public key in PEM form is refused: everybody
// has it, and what is meant is [NewJWKS]. The errors wrap [ErrInvalid].
func NewHS256(secret []byte, opts ...TokenOption) (*HS256, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("%w: secret of %d bytes, at least %d are needed", ErrInvalid, len(secret), MinSecret)
	}
	if block, _ := pem.Decode(secret); block != nil &&
		(strings.HasSuffix(block.Type, "PUBLIC KEY") || strings.HasSuffix(block.Type, "CERTIFICATE")) {
		return nil, fmt.Errorf("%w: secret is a public key, which is no secret", ErrInvalid)
	}
	config, err := newTokenConfig(tokenConfig{issues: true}, opts)
	if err != nil {
		return nil, err
	}
	return &HS256{config, bytes.Clone(secret)}, nil
}

// Format implements [fmt.Formatter] for every verb without the secret.
func (h *HS256) Format(f fmt.State, _ rune) { io.WriteString(f, "HS256(REDACTED)") }

// Authenticate implements [Authenticator]. A token holds when it is one of
// RFC 7519 in compact form, at most 8 KiB, signed with HS256 and this secret,
// and its claims say so: "sub" a valid user name, "exp" ahead, "nbf" by no more than 30
// seconds, since its issuer's clock may be ahead of this one, a role of 1 to 128
// printable bytes or none (a [RoleUser]'s), "iss" and "aud" as configured. "exp" has no
// tolerance for clocks that differ; "iat" is not compared (RFC 7519 section 4.1.6). Every error wraps [ErrUnauthenticated].
func (h *HS256) Authenticate(_ context.Context, s string) (Identity, error) {
	return h.config.authenticate(s, func(t *token.JWS) error {
		return t.Verify(jwa.HS256, h.secret)
	})
}

// Issue returns a new token for u, with "sub", the role (none stands for
// [RoleUser]), "iat", "exp", a random "jti" and, where configured, "iss" and
// "aud". The error wraps [ErrInvalid] when the name or the role cannot be a
// user's, or the token comes out longer than one may be.
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
	expires := now.Add(h.config.ttl)
	if whole := expires.Truncate(time.Second); whole.Before(expires) {
		expires = whole.Add(time.Second)
	}
	b := jwt.NewBuilder().
		Subject(u.Name).
		Claim(h.config.rules.Role, u.Role).
		IssuedAt(now).
		Expiration(expires).
		JwtID(rand.Text())
	if issuer := h.config.rules.Issuer; issuer != "" {
		b.Issuer(issuer)
	}
	if audience := h.config.rules.Audience; audience != "" {
		b.Audience([]string{audience})
	}
	claims, err := b.Build()
	if err != nil {
		return Token{}, fmt.Errorf("chat: issuing a token: %w", err)
	}
	signed, err := jwt.Sign(claims, jwt.WithKey(jwa.HS256, h.secret))
	if err != nil {
		return Token{}, fmt.Errorf("chat: issuing a token: %w", err)
	}
	if len(signed) > token.MaxLen {
		return Token{}, fmt.Errorf("%w: issuing a token: over %d bytes", ErrInvalid, token.MaxLen)
	}
	return Token{AccessToken: string(signed), ExpiresIn: h.config.ttl}, nil
}

// JWKS understands the tokens of somebody else's identity provider, by the keys
// that it publishes (RFC 7517). It is safe for concurrent use.
type JWKS struct {
	config tokenConfig
	keys   *keyset.Set
}

var _ Authenticator = (*JWKS)(nil)

// NewJWKS fetches the keys at url, which has to be https, or http on a loopback
// host, and keeps them fresh in a goroutine of its own until ctx ends. After
// that, the keys it has go on being used. The error wraps [ErrInvalid] for a url
// or an option that does not fit, [ErrUnavailable] for a provider that cannot be
// reached or publishes no key to use; it names the url.
//
// Set [WithIssuer] and [WithAudience]: a provider signs for others too.
func NewJWKS(ctx context.Context, url string, opts ...TokenOption) (*JWKS, error) {
	config, err := newTokenConfig(tokenConfig{fetches: true}, opts)
	if err != nil {
		return nil, err
	}
	keys, err := keyset.Open(ctx, url, config.client, config.log)
	switch {
	case errors.Is(err, keyset.ErrAddress):
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return &JWKS{config, keys}, nil
}

// Authenticate implements [Authenticator]. The claims are held to what
// [HS256.Authenticate] says; the signature has to be RS256, ES256 or EdDSA
// (Ed25519) by a key that the provider published for it, the one that the token
// names if it names one.
//
// A token by a key that is not known yet has the keys fetched at once, and waits
// for them until ctx ends: so a rotation is noticed without delay, but made-up
// keys cannot turn us against the provider, since after a few fetches there is
// one in ten seconds. Keys that the provider takes back are refused after five
// minutes at the latest. While the provider cannot be reached, or answers without a key
// that a token can be checked with, known keys go on, and the error for an unknown one
// wraps [ErrUnavailable], not [ErrUnauthenticated]: the token may be good. It is asked
// again after ten seconds, then less and less often.
func (j *JWKS) Authenticate(ctx context.Context, s string) (Identity, error) {
	return j.config.authenticate(s, func(t *token.JWS) error {
		return j.keys.Verify(ctx, t)
	})
}
