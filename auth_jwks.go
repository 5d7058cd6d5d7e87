package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/reto10/chat/internal/jwks"
	"github.com/reto10/chat/internal/jwt"
)

// JWKSOption is an option of [NewJWKS]: [WithHTTPClient], [WithJWKSLogger] or a
// [TokenOption].
type JWKSOption interface {
	applyJWKS(*jwksConfig) error
}

type jwksConfig struct {
	rules  jwt.Rules
	client *http.Client // nil stands for a plain one
	log    *slog.Logger
}

// jwksOption implements [JWKSOption].
type jwksOption func(*jwksConfig) error

func (o jwksOption) applyJWKS(c *jwksConfig) error { return o(c) }

// WithHTTPClient sets the client that fetches the keys. The default is a plain one with
// [http.DefaultTransport].
func WithHTTPClient(client *http.Client) JWKSOption {
	return jwksOption(func(c *jwksConfig) error {
		if client == nil {
			return fmt.Errorf("%w: WithHTTPClient: nil", ErrInvalid)
		}
		c.client = client
		return nil
	})
}

// WithJWKSLogger sets the logger for failed fetches of the keys: the first failure in a
// row at Warn, the first success after it at Info. The default is [slog.Default].
func WithJWKSLogger(l *slog.Logger) JWKSOption {
	return jwksOption(func(c *jwksConfig) error {
		if l == nil {
			return fmt.Errorf("%w: WithJWKSLogger: nil", ErrInvalid)
		}
		c.log = l
		return nil
	})
}

// JWKS authenticates tokens of an identity provider with the public keys that it
// publishes as a JSON Web Key Set (RFC 7517). It is safe for concurrent use.
type JWKS struct {
	rules jwt.Rules
	keys  *jwks.Set
}

var _ Authenticator = (*JWKS)(nil)

// NewJWKS fetches the keys at url, which is https, or http on a loopback host. A goroutine
// keeps the keys fresh until ctx ends; after that, the JWKS uses the last keys.
//
// Set [WithIssuer] and [WithAudience]: a provider signs tokens for other services too.
//
// The error wraps [ErrInvalid] for a bad url or option. It wraps [ErrUnavailable], and
// names the url, if the provider cannot be reached or publishes no usable key.
func NewJWKS(ctx context.Context, url string, opts ...JWKSOption) (*JWKS, error) {
	config := jwksConfig{rules: defaultRules, log: slog.Default()}
	for _, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("%w: a JWKSOption is nil", ErrInvalid)
		}
		if err := opt.applyJWKS(&config); err != nil {
			return nil, err
		}
	}
	keys, err := jwks.Open(ctx, url, config.client, config.log)
	switch {
	case errors.Is(err, jwks.ErrAddress):
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return &JWKS{config.rules, keys}, nil
}

// Authenticate implements [Authenticator]. The claims must be as [HS256.Authenticate]
// says. The signature must be RS256, ES256 or EdDSA (Ed25519), by a published key of that
// algorithm: by the key that the token names, if it names one.
//
// For a token with an unknown key, Authenticate fetches the keys and waits until ctx ends,
// so that a new key works at once. After a few such fetches there is at most one per ten
// seconds, which protects the provider from tokens with invented keys. A key that the
// provider withdraws is rejected after five minutes at the latest.
//
// A repeated token is not verified again until the keys are fetched, see
// [HS256.Authenticate].
//
// If the provider cannot be reached, or publishes no usable key, the known keys stay in
// use. The error for a token with an unknown key then wraps [ErrUnavailable], not
// [ErrUnauthenticated], because the token may be valid. Fetching is retried after ten
// seconds, then at growing intervals.
func (j *JWKS) Authenticate(ctx context.Context, token string) (Identity, error) {
	return authenticate(token, j.rules, j.keys.Verified, func(t *jwt.Token) error {
		return j.keys.Verify(ctx, t)
	})
}
