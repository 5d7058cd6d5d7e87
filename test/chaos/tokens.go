package chaos

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/reto10/chat"
)

// signer makes tokens (JWT, HS256) like those that the nodes issue. They have an expiry and
// no time of issue: the nodes' clocks may differ by more than any tolerance.
type signer []byte

func (s signer) token(u chat.User, expires time.Time) string {
	claims, err := json.Marshal(struct {
		Subject string `json:"sub"`
		Role    string `json:"role"`
		Expires int64  `json:"exp"`
	}{u.Name, u.Role, expires.Unix()})
	if err != nil {
		panic(err) // two strings and a number
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, s)
	mac.Write([]byte(text)) // never fails
	return text + "." + encode(mac.Sum(nil))
}
