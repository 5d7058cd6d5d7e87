package password

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// maxLine is the length in bytes of the longest line of a file: more than a name, a hash
// and a role need.
const maxLine = 1024

// saltAndSum is the number of characters after the cost: 22 of salt, 31 of checksum.
const saltAndSum = 22 + 31

// Parse reads users, one a line:
//
//	name:bcrypt-hash[:role]
//
// as "htpasswd -B" writes them. It skips blank lines and lines that begin with '#'; lines
// may end in CRLF. valid checks names and roles. The error gives the line's number and
// the fault, never the line's content: any field may be a secret that is in the wrong
// place.
func Parse(r io.Reader, valid func(string) bool) (*Users, error) {
	users := &Users{byName: make(map[string]user)}
	lines := make(map[string]int) // the line of each user
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	number := 0
	for scanner.Scan() {
		number++
		line := scanner.Text()
		if number == 1 {
			line = strings.TrimPrefix(line, "\ufeff") // a byte order mark, as some editors write
		}
		line = strings.TrimRight(line, " \t\r")
		if line == "" || strings.HasPrefix(strings.TrimLeft(line, " \t"), "#") {
			continue
		}
		name, u, err := parseLine(line, valid)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if earlier, ok := lines[name]; ok {
			return nil, fmt.Errorf("line %d: line %d has this user already", number, earlier)
		}
		lines[name] = number
		users.byName[name] = u
		users.cost = max(users.cost, u.cost)
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d: longer than %d bytes", number+1, maxLine)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("reading line %d: %w", number+1, err)
	}
	return users, nil
}

func parseLine(line string, valid func(string) bool) (name string, u user, err error) {
	fields := strings.Split(line, ":")
	if len(fields) < 2 || len(fields) > 3 {
		return "", user{}, errors.New("not name:hash or name:hash:role")
	}
	name = fields[0]
	if !valid(name) {
		return "", user{}, errors.New("not a valid user name")
	}
	u.hash = fields[1]
	if u.cost, err = parseHash(u.hash); err != nil {
		return "", user{}, err
	}
	if len(fields) == 3 {
		if u.role = fields[2]; !valid(u.role) {
			return "", user{}, errors.New("not a valid role")
		}
	}
	return name, u, nil
}

// parseHash returns the cost of a hash: $2y$10$ and 53 characters, for example. The
// variants 2a, 2b and 2y are one algorithm; 2x marks hashes of a faulty one. The last
// character encodes 4 bits of the checksum; if its other 2 bits are set, no password has
// this hash.
func parseHash(hash string) (cost int, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 4 || parts[0] != "" || len(parts[2]) != 2 || len(parts[3]) != saltAndSum ||
		(parts[1] != "2a" && parts[1] != "2b" && parts[1] != "2y") ||
		strings.IndexFunc(parts[3], notBase64) >= 0 {
		return 0, errors.New("not a bcrypt hash ($2a$, $2b$ or $2y$, 60 characters; htpasswd -B makes one)")
	}
	cost, err = strconv.Atoi(parts[2])
	if err != nil || cost < bcrypt.MinCost || cost > MaxCost {
		return 0, fmt.Errorf("bcrypt cost not within %d to %d", bcrypt.MinCost, MaxCost)
	}
	if strings.IndexByte(alphabet, parts[3][saltAndSum-1])%4 != 0 {
		return 0, errors.New("a bcrypt hash that no password has: its last character is wrong")
	}
	return cost, nil
}

// alphabet is bcrypt's variant of base64, in the order of the characters' values.
const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func notBase64(r rune) bool { return !strings.ContainsRune(alphabet, r) }
