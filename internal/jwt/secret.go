package jwt

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

// Secret verifies tokens that are signed with HS256 (HMAC with SHA-256, RFC 7518 section
// 3.2). It hashes the secret once, not for each token. It is safe for concurrent use.
type Secret struct{ macs sync.Pool } // of *mac

type mac struct {
	hash.Hash
	sum [sha256.Size]byte
}

// NewSecret returns a Secret with a copy of these bytes.
func NewSecret(secret []byte) *Secret {
	secret = bytes.Clone(secret)
	s := new(Secret)
	s.macs.New = func() any { return &mac{Hash: hmac.New(sha256.New, secret)} }
	return s
}

// Verify checks that the token names HS256 and is signed with the secret. The error is a
// [Refusal].
func (s *Secret) Verify(t *Token) error {
	if t.Algorithm != jwa.HS256.String() {
		return ErrAlgorithm
	}
	m := s.macs.Get().(*mac)
	defer s.macs.Put(m)
	m.Reset()
	m.Write(t.signed)
	if !hmac.Equal(m.Sum(m.sum[:0]), t.signature) {
		return ErrSignature
	}
	return nil
}
