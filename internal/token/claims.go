package token

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/reto10/chat/internal/jsonobject"
)

// Rules are what a token's claims have to agree with.
type Rules struct {
	Issuer   string // "iss", unchecked when ""
	Audience string // must be (one of) "aud", unchecked when ""
	Role     string // the name of the claim that holds the role
}

// Claims are what a token says, as far as this service wants to know.
type Claims struct {
	Subject string // "sub"
	Role    string // "" when the token has none
	Expires time.Time
}

// maxDate is the last second of the year 9999, the last that RFC 3339 can write.
const maxDate = 253402300799

// Leeway is how far "nbf" may lie ahead (RFC 7519 section 4.1.5): the clock of who
// signed the token may be ahead of ours, and it is used at once. "exp" has none: it
// says until when a token may be used at the longest.
const Leeway = 30 * time.Second

// Claims reads the token's claims and holds them against the rules and the time:
// "exp" is required and must lie ahead, "nbf" by no more than [Leeway], "iat"
// must be a date but may be any (RFC 7519 section 4.1.6 gives it no say), "sub"
// must be a string, the role, if present, one that is not empty. Names are told
// apart by case; of one that comes twice the last counts (RFC 7519 section 4).
// An expiry after the year 9999 counts as the end of that year. The error is a
// [Refusal].
func (t *JWS) Claims(rules Rules, now time.Time) (Claims, error) {
	all, err := jsonobject.Parse(t.payload)
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
	claims := Claims{Subject: jsonobject.Text(all.Get("sub")), Expires: expires}
	switch {
	case expires.IsZero():
		return Claims{}, ErrNoExpiry
	case !expires.After(now):
		return Claims{}, ErrExpired
	case notBefore.After(now.Add(Leeway)):
		return Claims{}, ErrNotYet
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

// texts is the string or strings that a JSON value is, none where it is neither.
func texts(value []byte) (list []string) {
	if s := jsonobject.Text(value); s != "" {
		return []string{s}
	}
	if json.Unmarshal(value, &list) != nil {
		return nil
	}
	return list
}

// numericDate reads a claim that is a number of seconds since 1970, whole or not
// (RFC 7519 section 2). The time is zero when there is no such claim.
func numericDate(all jsonobject.Members, name string) (time.Time, error) {
	value := all.Get(name)
	if value == nil {
		return time.Time{}, nil
	}
	if whole, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		return time.Unix(min(max(whole, 0), maxDate), 0), nil
	}
	seconds, err := strconv.ParseFloat(string(value), 64) // fails for what is no JSON number
	if err != nil {
		return time.Time{}, ErrDate
	}
	whole, part := math.Modf(min(max(seconds, 0), maxDate))
	return time.Unix(int64(whole), int64(part*1e9)), nil
}
