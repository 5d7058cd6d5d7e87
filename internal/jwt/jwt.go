// Package jwt signs, parses and verifies JSON Web Tokens (RFC 7519). It accepts one
// signature in compact form and nothing else. The caller chooses the algorithm and the
// key of a check; the token has no say in it.
package jwt

import (
	"encoding/base64"
	"slices"
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
	all       []byte // what the three are parts of
}

// encoding is base64url without padding (RFC 7515 section 2). It is strict: each byte
// string has exactly one text.
var encoding = base64.RawURLEncoding.Strict()

// Parse is [Token.Parse] of a new Token.
func Parse(s string) (*Token, error) {
	t := new(Token)
	if err := t.Parse(s); err != nil {
		return nil, err
	}
	return t, nil
}

// Parse parses a token in compact serialization (RFC 7515 section 7.1). It rejects every
// other form (JSON, encrypted, unsigned, detached, nested) and header extensions
// (RFC 7515 section 4.1.11). The type must be that of an access token (RFC 8725
// section 3.11): absent, "JWT" or "at+jwt". The error is a [Refusal]. Parse replaces an
// earlier token in t and reuses its memory.
func (t *Token) Parse(s string) error {
	t.Clear()
	if len(s) > MaxLen {
		return ErrTooLong
	}
	if strings.ContainsAny(s, "\r\n") { // the decoder would skip them
		return ErrMalformed
	}
	head, rest, _ := strings.Cut(s, ".")
	body, tail, _ := strings.Cut(rest, ".")
	if head == "" || body == "" || tail == "" {
		return ErrMalformed
	}
	signed := s[:len(head)+1+len(body)]
	room := len(signed) + encoding.DecodedLen(len(head)) + encoding.DecodedLen(len(body)) + encoding.DecodedLen(len(tail))
	t.all = append(slices.Grow(t.all, room), signed...)
	rawHeader, err := t.decode(head)
	if err != nil {
		return err
	}
	payload, err := t.decode(body)
	if err != nil {
		return err
	}
	signature, err := t.decode(tail) // fails for a fourth part: a dot is no base64url
	if err != nil {
		return err
	}
	var members [jsonobject.Usual]jsonobject.Member
	header, err := jsonobject.Append(members[:0], rawHeader)
	if err != nil || !utf8.Valid(rawHeader) {
		return ErrMalformed
	}
	var named [4]string
	for i, name := range [...]string{"alg", "kid", "typ", "cty"} {
		value := header.Get(name)
		if value == nil {
			continue
		}
		if value[0] != '"' {
			return ErrMalformed
		}
		named[i] = jsonobject.Text(value)
	}
	algorithm, keyID, typ, contentType := named[0], named[1], named[2], named[3]
	switch {
	case algorithm == "":
		return ErrMalformed
	case header.Get("crit") != nil:
		return ErrExtension
	case !accessType(typ) || contentType != "":
		return ErrType
	}
	t.Algorithm, t.KeyID = algorithm, keyID
	t.signed, t.payload, t.signature = t.all[:len(signed)], payload, signature
	return nil
}

// Clear makes t empty. It keeps the memory for the next Parse, without the token.
func (t *Token) Clear() {
	clear(t.all)
	*t = Token{all: t.all[:0]}
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
	const media = "application/"
	if len(typ) >= len(media) && strings.EqualFold(typ[:len(media)], media) {
		typ = typ[len(media):]
	}
	return typ == "" || strings.EqualFold(typ, "jwt") || strings.EqualFold(typ, "at+jwt")
}

// decode appends the bytes of a part of a token to t.all, which has room for them, and
// returns them.
func (t *Token) decode(part string) (bytes []byte, err error) {
	from := len(t.all)
	if t.all, err = encoding.AppendDecode(t.all, []byte(part)); err != nil {
		return nil, ErrMalformed
	}
	return t.all[from:len(t.all):len(t.all)], nil
}
