package jwks

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/reto10/chat/internal/jwt"
)

const (
	// maxKeys bounds the signature checks that one token can cause.
	maxKeys = 100
	// RFC 7518 section 3.3 requires at least 2048 bits. Above 8192 bits a check takes so
	// long that an attacker could use it.
	minRSABits, maxRSABits = 2048, 8192
)

// errUnknownKey means that a key published since the last fetch may have signed the token.
var errUnknownKey = errors.New("token is signed by an unknown key")

// keys are the usable keys of one fetch. They do not change.
type keys struct {
	list     []key
	verified jwt.Cache // of tokens that these keys verified
}

// key is a public key with its one algorithm.
type key struct {
	id        string // "kid", "" if absent
	algorithm jwa.SignatureAlgorithm
	public    any
}

// parseKeys parses a key set and keeps the keys that can verify tokens. It ignores keys
// of other kinds or for other uses. A set without a usable key is an error: it is a
// provider's fault rather than its intention, and would invalidate every token.
func parseKeys(body []byte) (*keys, error) {
	set, err := jwk.Parse(body, jwk.WithIgnoreParseError(true))
	if err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	if set.Len() > maxKeys {
		return nil, fmt.Errorf("%d keys, more than %d", set.Len(), maxKeys)
	}
	found := &keys{}
	for i := range set.Len() {
		candidate, _ := set.Key(i)
		public, algorithm := usable(candidate)
		if public == nil {
			continue
		}
		found.list = append(found.list, key{candidate.KeyID(), algorithm, public})
	}
	if len(found.list) == 0 {
		return nil, fmt.Errorf("no key among %d can verify a token", set.Len())
	}
	return found, nil
}

// usable returns the public key and its algorithm, or nil if the key is not meant for
// verifying signatures. A published private or symmetric key is not usable: everyone
// could sign with it.
func usable(k jwk.Key) (public any, algorithm jwa.SignatureAlgorithm) {
	switch k := k.(type) {
	case jwk.RSAPublicKey:
		var raw rsa.PublicKey
		if k.Raw(&raw) != nil || raw.N.BitLen() < minRSABits || raw.N.BitLen() > maxRSABits {
			return nil, ""
		}
		public, algorithm = &raw, jwa.RS256
	case jwk.ECDSAPublicKey:
		var raw ecdsa.PublicKey
		if k.Raw(&raw) != nil || raw.Curve != elliptic.P256() {
			return nil, ""
		}
		if _, err := raw.ECDH(); err != nil { // not on the curve
			return nil, ""
		}
		public, algorithm = &raw, jwa.ES256
	case jwk.OKPPublicKey:
		var raw ed25519.PublicKey
		if k.Crv() != jwa.Ed25519 || k.Raw(&raw) != nil || len(raw) != ed25519.PublicKeySize {
			return nil, ""
		}
		public, algorithm = raw, jwa.EdDSA
	default:
		return nil, ""
	}
	if says := k.Algorithm().String(); says != "" && says != algorithm.String() {
		return nil, ""
	}
	if use := k.KeyUsage(); use != "" && use != jwk.ForSignature.String() {
		return nil, ""
	}
	if ops := k.KeyOps(); len(ops) > 0 && !slices.Contains(ops, jwk.KeyOpVerify) {
		return nil, ""
	}
	return public, algorithm
}

// verify checks the token with the key that it names. If it names none, every key of its
// algorithm is tried; if no key has that name, every such key without a name. The error
// is a [jwt.Refusal] or errUnknownKey.
func (s *keys) verify(t *jwt.Token) error {
	switch t.Algorithm {
	case jwa.RS256.String(), jwa.ES256.String(), jwa.EdDSA.String():
	default:
		return jwt.ErrAlgorithm
	}
	named := false
	for _, k := range s.list {
		if t.KeyID != "" && k.id == t.KeyID {
			named = true
			if k.check(t) {
				return nil
			}
		}
	}
	if named { // the key is known and did not sign the token
		return jwt.ErrSignature
	}
	for _, k := range s.list {
		if (t.KeyID == "" || k.id == "") && k.check(t) {
			return nil
		}
	}
	return errUnknownKey
}

func (k key) check(t *jwt.Token) bool {
	return t.Algorithm == k.algorithm.String() && t.Verify(k.algorithm, k.public) == nil
}
