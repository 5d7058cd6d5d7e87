// Package token reads JSON Web Tokens (RFC 7519) the strict way: one signature
// in compact form, nothing optional, nothing guessed. What algorithm and key a
// token is checked with is the caller's choice, never the token's.
package token

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/reto10/chat/internal/jsonobject"
)

// MaxLen is the length in bytes of the longest token that is looked at.
const MaxLen = 8 << 10

// Refusal is why a token does not hold. Its text is short and holds nothing of
// the token.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// The refusals.
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

// JWS is a token taken apart; nothing of it is verified yet.
type JWS struct {
	Algorithm string // "alg", never empty
	KeyID     string // "kid", "" when absent
	signed    []byte // header and payload as they were signed
	payload   []byte
	signature []byte
}

// encoding is base64url without padding (RFC 7515 section 2), in which every
// byte string has one text only.
var encoding = base64.RawURLEncoding.Strict()

// Parse takes a token in compact serialization (RFC 7515 section 7.1) apart. It
// refuses every other form (JSON, encrypted, unsigned, detached, nested), header
// extensions (RFC 7515 section 4.1.11), and types other than an access token's
// (RFC 8725 section 3.11): absent, "JWT" or "at+jwt". The error is a [Refusal].
func Parse(s string) (*JWS, error) {
	if len(s) > MaxLen {
		return nil, ErrTooLong
	}
	for i := range len(s) {
		if !inAlphabet(s[i]) { // the decoder would skip line ends
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
	return &JWS{
		Algorithm: algorithm,
		KeyID:     keyID,
		signed:    []byte(s[:len(parts[0])+1+len(parts[1])]),
		payload:   payload,
		signature: signature,
	}, nil
}

// Verify checks that the token says it is signed with this algorithm and that it
// is, with this key: []byte, [*crypto/rsa.PublicKey], [*crypto/ecdsa.PublicKey]
// or [crypto/ed25519.PublicKey], the kind that the algorithm takes. The error is
// a [Refusal].
func (t *JWS) Verify(algorithm jwa.SignatureAlgorithm, key any) error {
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

// accessType reports whether a "typ" header may stand on an access token. It is
// a media type, of which "application/" may be left out (RFC 7515 section
// 4.1.9); RFC 9068 gives access tokens their own.
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
