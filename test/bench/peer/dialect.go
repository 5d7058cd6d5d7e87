package peer

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Dialect is the protocol between a client and a kind of server.
type Dialect struct {
	kind  string
	token func(user int) (string, error)
}

// NewDialect returns the dialect of a kind. token returns a user's token, for servers that
// need one.
func NewDialect(kind string, token func(user int) (string, error)) Dialect {
	return Dialect{kind, token}
}

// Request is the handshake of a user's socket in channels. resume is "" or a result of Resume.
func (d Dialect) Request(user int, channels []string, resume string) (string, error) {
	var b strings.Builder
	switch d.kind {
	case "chat":
		token, err := d.token(user)
		if err != nil {
			return "", err
		}
		b.WriteString("GET /ws/chat?")
		for _, c := range channels {
			b.WriteString("channel=" + c + "&")
		}
		b.WriteString(resume)
		fmt.Fprintf(&b, " HTTP/1.1\r\nAuthorization: Bearer %s\r\nSec-WebSocket-Protocol: chat.v1\r\n", token)
	default:
		fmt.Fprintf(&b, "GET /?user=user%d HTTP/1.1\r\n", user)
	}
	// The key needs no secrecy: it shows a proxy that the answer is not an old one.
	b.WriteString("Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YmVuY2htYXJrYmVuY2htYQ==\r\n\r\n")
	return b.String(), nil
}

// Hello returns the text that a client sends after the handshake, "" for none. resume is "" or
// a result of Resume.
func (d Dialect) Hello(channels []string, resume string) string {
	if d.kind != "centrifuge" {
		return ""
	}
	subs := make([]string, len(channels))
	for i, c := range channels {
		subs[i] = fmt.Sprintf("%q:{}", c)
	}
	if resume != "" {
		subs = append(subs, resume)
	}
	return fmt.Sprintf(`{"id":1,"connect":{"subs":{%s}}}`, strings.Join(subs, ","))
}

// Resume returns what a client sends to receive later what it misses from now on. ok is false
// unless the message is the server's first on a socket.
func (d Dialect) Resume(message []byte) (resume string, ok bool) {
	var parts []string
	switch d.kind {
	case "chat":
		var welcome struct {
			Type  string   `json:"type"`
			Since []string `json:"since"`
		}
		if json.Unmarshal(message, &welcome) != nil || welcome.Type != "welcome" {
			return "", false
		}
		for _, id := range welcome.Since {
			parts = append(parts, "since="+id)
		}
		return strings.Join(parts, "&"), true
	case "centrifuge":
		var reply struct {
			Connect *struct {
				Subs map[string]struct {
					Epoch  string `json:"epoch"`
					Offset uint64 `json:"offset"`
				} `json:"subs"`
			} `json:"connect"`
		}
		if json.Unmarshal(message, &reply) != nil || reply.Connect == nil {
			return "", false
		}
		for channel, s := range reply.Connect.Subs {
			parts = append(parts, fmt.Sprintf(`%q:{"recover":true,"epoch":%q,"offset":%d}`, channel, s.Epoch, s.Offset))
		}
		return strings.Join(parts, ","), true
	}
	return "", false
}

// Ping returns the server's text for a ping, which is also the answer, "" if it uses
// WebSocket's pings.
func (d Dialect) Ping() string {
	if d.kind == "centrifuge" {
		return "{}"
	}
	return ""
}

// Command returns a small message that gets one small message as an answer.
func (d Dialect) Command() string {
	const command = `{"type":"leave","ref":"7","channel":"elsewhere"}`
	if d.kind == "centrifuge" {
		return `{"id":2,"rpc":{"data":` + command + `}}`
	}
	return command
}
