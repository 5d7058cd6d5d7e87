package wire

import (
	"errors"
	"strconv"
	"strings"
)

// An id is SEQ-EPOCH in the common channel and SEQ-EPOCH-CHANNEL in any other. It has
// URL-safe characters only, so that a client can put it in a query unchanged. In the
// channel's name each byte other than A-Z a-z 0-9 . _ : @ - is written as ~ and two
// hexadecimal digits. Each position has exactly one spelling.

const maxEpoch = 32

const upperHex = "0123456789ABCDEF"

// FormatID returns the id of a position in a channel.
func FormatID(channel, epoch string, seq uint64) string {
	b := make([]byte, 0, 24+len(epoch)+len(channel))
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, '-')
	b = append(b, epoch...)
	if channel == "" {
		return string(b)
	}
	b = append(b, '-')
	for i := range len(channel) {
		if c := channel[i]; plainInID(c) {
			b = append(b, c)
		} else {
			b = append(b, '~', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

// ParseID parses an id exactly as FormatID writes it. It does not check whether the
// channel's name is valid.
func ParseID(id string) (channel, epoch string, seq uint64, err error) {
	seqText, rest, ok := strings.Cut(id, "-")
	if !ok {
		return "", "", 0, errors.New("not an id")
	}
	seq, err = strconv.ParseUint(seqText, 10, 64)
	if err != nil {
		return "", "", 0, errors.New("not an id: no number")
	}
	epoch, escaped, named := strings.Cut(rest, "-")
	if !validEpoch(epoch) {
		return "", "", 0, errors.New("not an id: no epoch")
	}
	if named {
		channel, err = unescapeChannel(escaped)
		if err != nil {
			return "", "", 0, err
		}
	}
	if FormatID(channel, epoch, seq) != id {
		return "", "", 0, errors.New("not an id: another spelling")
	}
	return channel, epoch, seq, nil
}

func unescapeChannel(s string) (string, error) {
	if !strings.Contains(s, "~") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '~' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errors.New("not an id: broken escape")
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", errors.New("not an id: broken escape")
		}
		b = append(b, byte(c))
		i += 2
	}
	return string(b), nil
}

func validEpoch(s string) bool {
	if s == "" || len(s) > maxEpoch {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) {
			return false
		}
	}
	return true
}

func plainInID(c byte) bool {
	return alphanumeric(c) || c == '.' || c == '_' || c == ':' || c == '@' || c == '-'
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
