package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/reto10/chat/internal/jwt"
)

// Identity is what a valid token says about its user.
type Identity struct {
	User    User      // an empty role stands for RoleUser
	Expires time.Time // the token is invalid from this moment on; required
}

// Authenticator turns a token into an identity. [HS256], [JWKS] and [PasswordLogin]
// implement it. A service whose Authenticator also is a [LoginProvider] serves POST
// /login.
type Authenticator interface {
	// Authenticate returns the identity of a token. The token comes from a client and
	// may be anything. The service calls Authenticate once per request, connection and
	// refresh, concurrently. ctx ends with the request, or after five seconds for a
	// refresh.
	//
	// An error that wraps [ErrUnauthenticated] means that the token is invalid. The
	// client may see its text, which must contain nothing from the token. Any other
	// error means that the token cannot be checked now; the client gets a 503 and
	// retries.
	Authenticate(ctx context.Context, token string) (Identity, error)
}

// LoginProvider issues tokens for passwords. An [Authenticator] may implement it.
type LoginProvider interface {
	// Login returns a token that Authenticate accepts. The name and the password are as
	// the client sent them, neither of them empty. The service limits how often a client
	// may try, and calls Login concurrently.
	//
	// An error that wraps [ErrUnauthenticated] means that the name or the password is
	// wrong. Neither its text nor the time that Login takes may reveal whether the user
	// exists. Any other error means that the password cannot be checked now.
	Login(ctx context.Context, username, password string) (Token, error)
}

// Token is a newly issued token. As a value or an attribute of its own, fmt and log/slog
// show when it expires, and not the token. encoding/json writes the token, so that slog's
// JSON handler shows it in the fields of another struct.
type Token struct {
	AccessToken string        // what a client sends to authenticate; a secret
	ExpiresIn   time.Duration // since it was issued
}

// MarshalJSON returns the answer of POST /login, the token included:
//
//	{"access_token":"…","token_type":"bearer","expires_in":900}
//
// expires_in is in whole seconds, rounded down.
func (t Token) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"`
	}{t.AccessToken, "bearer", int64(t.ExpiresIn / time.Second)})
}

// Format implements [fmt.Formatter]. No verb prints the token.
func (t Token) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "Token(REDACTED, expires in %v)", t.ExpiresIn)
}

// LogValue implements [slog.LogValuer]. The value does not contain the token.
func (t Token) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(t)) }

// TokenOption is an option of [NewHS256] and of [NewJWKS].
type TokenOption interface {
	HS256Option
	JWKSOption
}

// rulesOption implements [TokenOption].
type rulesOption func(*jwt.Rules) error

func (o rulesOption) applyHS256(h *HS256) error     { return o(&h.rules) }
func (o rulesOption) applyJWKS(c *jwksConfig) error { return o(&c.rules) }

// WithIssuer requires tokens to have exactly this "iss", and adds it to issued tokens. By
// default "iss" is not checked.
func WithIssuer(issuer string) TokenOption {
	return rulesOption(func(r *jwt.Rules) error {
		if issuer == "" {
			return fmt.Errorf("%w: WithIssuer: empty", ErrInvalid)
		}
		r.Issuer = issuer
		return nil
	})
}

// WithAudience requires this audience in the "aud" of tokens, and adds it to issued
// tokens. By default "aud" is not checked. Set it if the same provider signs tokens for
// other services.
func WithAudience(audience string) TokenOption {
	return rulesOption(func(r *jwt.Rules) error {
		if audience == "" {
			return fmt.Errorf("%w: WithAudience: empty", ErrInvalid)
		}
		r.Audience = audience
		return nil
	})
}

// WithRoleClaim names the claim with the role, a string. The default is "role".
func WithRoleClaim(name string) TokenOption {
	return rulesOption(func(r *jwt.Rules) error {
		if name == "" {
			return fmt.Errorf("%w: WithRoleClaim: empty", ErrInvalid)
		}
		if slices.Contains([]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}, name) {
			return fmt.Errorf("%w: WithRoleClaim: %q has another meaning (RFC 7519 section 4.1)", ErrInvalid, name)
		}
		r.Role = name
		return nil
	})
}

// defaultRules apply where no option changes them.
var defaultRules = jwt.Rules{Role: "role"}

// authenticate returns the identity of a token. For a token that verified before, it checks
// the time alone. keys returns the cache of the keys that are in use now.
//
// Claims are checked before the signature because they are cheap: an expired token with an
// unknown key must not cause a fetch of keys.
func authenticate(text string, rules jwt.Rules, keys func() *jwt.Cache, verify func(*jwt.Token) error) (Identity, error) {
	if len(text) > jwt.MaxLen {
		return Identity{}, tokenError(jwt.ErrTooLong)
	}
	cache, sum, now := keys(), jwt.Sum(text), time.Now()
	claims, known, err := cache.Get(sum, now)
	if err != nil {
		return Identity{}, tokenError(err)
	}
	if known {
		return identityOf(claims), nil
	}
	token := tokens.Get().(*jwt.Token)
	defer func() {
		token.Clear()
		tokens.Put(token)
	}()
	if err := token.Parse(text); err != nil {
		return Identity{}, tokenError(err)
	}
	if claims, err = token.Claims(rules, now); err != nil {
		return Identity{}, tokenError(err)
	}
	if !ValidUsername(claims.Subject) {
		return Identity{}, tokenError(jwt.ErrSubject)
	}
	if claims.Role == "" {
		claims.Role = RoleUser
	}
	if !validRole(claims.Role) {
		return Identity{}, tokenError(jwt.ErrRole)
	}
	if err := verify(token); err != nil {
		return Identity{}, tokenError(err)
	}
	if keys() == cache { // else the keys changed meanwhile, and the old ones may have verified it
		cache.Add(sum, claims, now)
	}
	return identityOf(claims), nil
}

// tokens are for authenticate.
var tokens = sync.Pool{New: func() any { return new(jwt.Token) }}

func identityOf(c jwt.Claims) Identity {
	return Identity{User: User{Name: c.Subject, Role: c.Role}, Expires: c.Expires}
}

// tokenError wraps an error of package jwt or jwks in one of this package.
func tokenError(err error) error {
	if refusal := jwt.Refusal(""); errors.As(err, &refusal) {
		return fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	return fmt.Errorf("%w: checking a token: %w", ErrUnavailable, err)
}

// validRole reports whether a string can be a role. Clients see roles next to user names,
// so that the same rule applies.
func validRole(role string) bool { return ValidUsername(role) }
