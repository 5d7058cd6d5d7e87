// Package jwt signs, parses and verifies JSON Web Tokens (RFC 7519). It accepts one
// signature in compact form and nothing else. The caller chooses the algorithm and the
// key of a check; the token has no say in it.
package jwt

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/reto10/chat/internal/jsonobject"
)

// MaxLen is the length in bytes of the longest token that [Parse] accepts.
const MaxLen = 8 << 10

// Refusal is the reason why a token is invalid. Its text is short and contains nothing
// from the token.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// The reasons.
const (
	ErrTooLong   Refusal = "token is too long"
	ErrMalformed Refusal = "token is malformed"
	ErrExtension Refusal = "token asks for an extension"
	ErrType      Refusal = "token is of another type"
	ErrAlgorithm Refusal = "token is signed with another algorithm"
	ErrSignature Refusal = "token is not signed by a known key"
	ErrExpired   Refusal = "token expired"
	ErrNotYet    Refusal = "token is not valid yet"
	ErrNoExpiry  Refusal = "token has no expiry"
	ErrSubject   Refusal = "token names no valid user"
	ErrRole      Refusal = "token has no valid role"
	ErrIssuer    Refusal = "token is from another issuer"
	ErrAudience  Refusal = "token is for another audience"
	ErrDate      Refusal = "token has a date that is no number"
)

// Token is a parsed token. Nothing in it is verified yet.
type Token struct {
	Algorithm string // "alg", never empty
	KeyID     string // "kid", "" when absent
	signed    []byte // the text that the signature is of: header, dot, payload
	payload   []byte
	signature []byte
}

// encoding is base64url without padding (RFC 7515 section 2). It is strict: each byte
// string has exactly one text.
var encoding = base64.RawURLEncoding.Strict()

// Parse parses a token in compact serialization (RFC 7515 section 7.1). It rejects every
// other form (JSON, encrypted, unsigned, detached, nested) and header extensions
// (RFC 7515 section 4.1.11). The type must be that of an access token (RFC 8725
// section 3.11): absent, "JWT" or "at+jwt". The error is a [Refusal].
func Parse(s string) (*Token, error) {
	if len(s) > MaxLen {
		return nil, ErrTooLong
	}
	for i := range len(s) {
		if !inAlphabet(s[i]) { // the decoder would skip line breaks
			return nil, ErrMalformed
		}
	}
	parts := strings.SplitN(s, ".", 4)
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return nil, ErrMalformed
	}
	rawHeader, err := encoding.DecodeString(parts[0])
	if err != nil {
		return nil, ErrMalformed
	}
	payload, err := encoding.DecodeString(parts[1])
	if err != nil {
		return nil, ErrMalformed
	}
	signature, err := encoding.DecodeString(parts[2])
	if err != nil {
		return nil, ErrMalformed
	}
	header, err := jsonobject.Parse(rawHeader)
	if err != nil || !utf8.Valid(rawHeader) {
		return nil, ErrMalformed
	}
	var named [4]string
	for i, name := range [...]string{"alg", "kid", "typ", "cty"} {
		value := header.Get(name)
		if value == nil {
			continue
		}
		if value[0] != '"' {
			return nil, ErrMalformed
		}
		named[i] = jsonobject.Text(value)
	}
	algorithm, keyID, typ, contentType := named[0], named[1], named[2], named[3]
	switch {
	case algorithm == "":
		return nil, ErrMalformed
	case header.Get("crit") != nil:
		return nil, ErrExtension
	case !accessType(typ) || contentType != "":
		return nil, ErrType
	}
	return &Token{
		Algorithm: algorithm,
		KeyID:     keyID,
		signed:    []byte(s[:len(parts[0])+1+len(parts[1])]),
		payload:   payload,
		signature: signature,
	}, nil
}

// Verify checks that the token names this algorithm and is signed with it and this key.
// The key is of the algorithm's kind: []byte, [*crypto/rsa.PublicKey],
// [*crypto/ecdsa.PublicKey] or [crypto/ed25519.PublicKey]. The error is a [Refusal].
func (t *Token) Verify(algorithm jwa.SignatureAlgorithm, key any) error {
	if t.Algorithm != algorithm.String() {
		return ErrAlgorithm
	}
	verifier, err := jws.NewVerifier(algorithm)
	if err != nil {
		return ErrAlgorithm
	}
	if err := verifier.Verify(t.signed, t.signature, key); err != nil {
		return ErrSignature
	}
	return nil
}

// accessType reports whether a "typ" header is that of an access token. It is a media
// type whose "application/" may be left out (RFC 7515 section 4.1.9). RFC 9068 defines
// "at+jwt" for access tokens.
func accessType(typ string) bool {
	switch strings.TrimPrefix(strings.ToLower(typ), "application/") {
	case "", "jwt", "at+jwt":
		return true
	}
	return false
}

func inAlphabet(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}
