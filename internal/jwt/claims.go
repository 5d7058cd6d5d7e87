package jwt

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/reto10/chat/internal/jsonobject"
)

// Rules are what the claims of a token must satisfy.
type Rules struct {
	Issuer   string // "iss" must equal this; "" is no rule
	Audience string // "aud" must equal or contain this; "" is no rule
	Role     string // the name of the role's claim
}

// Claims are the claims of a token that the service uses.
type Claims struct {
	Subject   string // "sub"
	Role      string // "" when the token has none
	Expires   time.Time
	NotBefore time.Time // "nbf"; zero when the token has none
}

// maxDate is the last second of the year 9999, the last that RFC 3339 can express.
const maxDate = 253402300799

// Leeway is how far "nbf" may lie in the future (RFC 7519 section 4.1.5). The issuer's
// clock may be ahead of this one, and clients use new tokens at once. "exp" has no leeway.
const Leeway = 30 * time.Second

// Claims reads the token's claims and checks them against the rules and the time. The
// error is a [Refusal].
//
//   - "exp" is required and must be in the future. One after the year 9999 counts as the
//     end of that year.
//   - "nbf" may be at most [Leeway] in the future.
//   - "iat" must be a date and is not compared (RFC 7519 section 4.1.6).
//   - "sub" must be a non-empty string, and so must the role, if there is one.
//
// Names are case-sensitive. If a name appears twice, the last one counts (RFC 7519
// section 4).
func (t *Token) Claims(rules Rules, now time.Time) (Claims, error) {
	var room [jsonobject.Usual]jsonobject.Member
	all, err := jsonobject.Append(room[:0], t.payload)
	if err != nil || !utf8.Valid(t.payload) {
		return Claims{}, ErrMalformed
	}
	expires, err := numericDate(all, "exp")
	if err != nil {
		return Claims{}, err
	}
	notBefore, err := numericDate(all, "nbf")
	if err != nil {
		return Claims{}, err
	}
	if _, err := numericDate(all, "iat"); err != nil {
		return Claims{}, err
	}
	if expires.IsZero() {
		return Claims{}, ErrNoExpiry
	}
	claims := Claims{Subject: jsonobject.Text(all.Get("sub")), Expires: expires, NotBefore: notBefore}
	if err := claims.CheckTime(now); err != nil {
		return Claims{}, err
	}
	switch {
	case claims.Subject == "":
		return Claims{}, ErrSubject
	case rules.Issuer != "" && jsonobject.Text(all.Get("iss")) != rules.Issuer:
		return Claims{}, ErrIssuer
	case rules.Audience != "" && !slices.Contains(texts(all.Get("aud")), rules.Audience):
		return Claims{}, ErrAudience
	}
	if role := all.Get(rules.Role); role != nil {
		if claims.Role = jsonobject.Text(role); claims.Role == "" {
			return Claims{}, ErrRole
		}
	}
	return claims, nil
}

// CheckTime compares the claims with the time. The error is a [Refusal], nil for a token
// that is valid now.
func (c Claims) CheckTime(now time.Time) error {
	switch {
	case !c.Expires.After(now):
		return ErrExpired
	case c.NotBefore.After(now.Add(Leeway)):
		return ErrNotYet
	}
	return nil
}

// texts returns the string or the strings of a JSON value, none for any other value.
func texts(value []byte) (list []string) {
	if s := jsonobject.Text(value); s != "" {
		return []string{s}
	}
	if json.Unmarshal(value, &list) != nil {
		return nil
	}
	return list
}

// numericDate reads a claim that is a number of seconds since 1970, with or without a
// fraction (RFC 7519 section 2). It returns the zero time if the claim is absent.
func numericDate(all jsonobject.Members, name string) (time.Time, error) {
	value := all.Get(name)
	if value == nil {
		return time.Time{}, nil
	}
	if whole, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		return time.Unix(min(max(whole, 0), maxDate), 0), nil
	}
	seconds, err := strconv.ParseFloat(string(value), 64) // fails unless the value is a JSON number
	if err != nil {
		return time.Time{}, ErrDate
	}
	whole, part := math.Modf(min(max(seconds, 0), maxDate))
	return time.Unix(int64(whole), int64(part*1e9)), nil
}
