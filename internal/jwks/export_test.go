package jwks

import (
	"fmt"

	"github.com/reto10/chat/internal/jwt"
)

// ParseKeys reads a key set. It returns the algorithm and the type of each key that is
// taken, and what checks a token with them.
func ParseKeys(body []byte) (kinds []string, verify func(*jwt.Token) error, err error) {
	found, err := parseKeys(body)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range found.list {
		kinds = append(kinds, fmt.Sprintf("%s %T", k.algorithm, k.public))
	}
	return kinds, found.verify, nil
}
