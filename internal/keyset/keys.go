package keyset

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

	"github.com/reto10/chat/internal/token"
)

const (
	// maxKeys bounds how many signatures one token can make us check.
	maxKeys = 100
	// RFC 7518 section 3.3 wants 2048 bits at least; past 8192 a check takes
	// long enough to be of use to an attacker.
	minRSABits, maxRSABits = 2048, 8192
)

// errUnknownKey says that the token may be signed by a key that came since.
var errUnknownKey = errors.New("token is signed by an unknown key")

// keys is what one fetch brought. It does not change.
type keys struct{ list []key }

// key is a public key and the one algorithm that it is used with.
type key struct {
	id        string // "" when it has none
	algorithm jwa.SignatureAlgorithm
	public    any
}

// parseKeys reads a key set and keeps the keys that check tokens. Others, of
// other kinds or for other uses, may stand beside them. A set without one that checks
// tokens is an error: no provider means that, and it would end every token.
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
		return nil, fmt.Errorf("no key among %d that a token can be checked with", set.Len())
	}
	return found, nil
}

// usable returns the public key and its algorithm, nothing when it is not for
// checking the signature of tokens. A private or symmetric key that somebody
// published is nobody's proof.
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

// verify checks the token with the key that it names; where it names none, or no
// key has that name, with those of its algorithm that it could mean. The error
// is a [token.Refusal] or errUnknownKey.
func (s *keys) verify(t *token.JWS) error {
	switch t.Algorithm {
	case jwa.RS256.String(), jwa.ES256.String(), jwa.EdDSA.String():
	default:
		return token.ErrAlgorithm
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
	if named { // by a key we have, and it is not
		return token.ErrSignature
	}
	for _, k := range s.list {
		if (t.KeyID == "" || k.id == "") && k.check(t) {
			return nil
		}
	}
	return errUnknownKey
}

func (k key) check(t *token.JWS) bool {
	return t.Algorithm == k.algorithm.String() && t.Verify(k.algorithm, k.public) == nil
}
