// Package peer has what the compared servers share: the process around a server, which
// publishes and measures, and the clients' protocol for each. It does not import their
// libraries: each server's program links only its own.
package peer

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Peer is one of the compared servers.
type Peer interface {
	http.Handler // upgrades

	// Publish sends one message to every socket, or to a channel's if the peer has channels. It
	// returns when the message is queued for all of them. Several goroutines call it at once
	// only if the peer has channels.
	Publish(channel, content string) error
	// Sockets returns how many are connected.
	Sockets() int
}

// UserPublisher is a Peer that finds a user's socket if Settings.Direct is set.
type UserPublisher interface {
	// PublishTo sends one message to a user's socket. Several goroutines call it at once.
	PublishTo(user, content string) error
}

// Settings are what a row changes of a server's defaults.
type Settings struct {
	Secret    []byte        // of the tokens, for peers that verify any
	TLS       bool          // the sockets speak TLS
	Backlog   int           // bytes that may wait for a slow socket; 0: the default
	Heartbeat time.Duration // 0: the default
	Direct    bool          // messages go to single users, see UserPublisher
	History   bool          // keep messages for sockets that resume, if that is not the default
}

// User returns the name of the user who asks for a socket. The tests' users are honest.
func User(r *http.Request) string { return r.URL.Query().Get("user") }

// Kinds are the servers' names: first this library, then the floor.
var Kinds = []string{"chat", "write", "gws", "gorilla", "gorilla-joined", "melody", "nhooyr", "centrifuge"}

// Known reports whether there is a server of a kind.
func Known(kind string) bool { return slices.Contains(Kinds, kind) }

// Program returns the name of the program, and of its directory, that serves a kind.
func Program(kind string) string {
	if kind == "gorilla-joined" {
		return "gorilla"
	}
	return kind
}

// mark begins a content that Stamp can read. Nothing else in an event has it.
const mark = '~'

// content returns the content of a message: its number in its channel, the time when it was
// due, and padding up to size bytes.
func content(seq uint64, due time.Time, size int) string {
	b := make([]byte, 0, max(size, 64))
	b = append(b, mark)
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, due.UnixNano(), 10)
	b = append(b, ' ')
	for len(b) < size {
		b = append(b, 'x')
	}
	return string(b)
}

// Stamp returns the number and the time (Unix nanoseconds) in an event with a published
// content. ok is false for other events.
func Stamp(event []byte) (seq uint64, due int64, ok bool) {
	i := slices.Index(event, mark)
	if i < 0 {
		return 0, 0, false
	}
	a, rest, ok1 := number(event[i+1:])
	b, _, ok2 := number(rest)
	return a, int64(b), ok1 && ok2
}

// Stamps calls fn for each published content in an event, which may have several, and returns
// how many there are.
func Stamps(event []byte, fn func(seq uint64)) (n int) {
	for {
		i := slices.Index(event, mark)
		if i < 0 {
			return n
		}
		event = event[i+1:]
		if seq, _, ok := number(event); ok {
			n++
			fn(seq)
		}
	}
}

// number reads digits up to a space.
func number(b []byte) (n uint64, rest []byte, ok bool) {
	for i, c := range b {
		switch {
		case c == ' ':
			return n, b[i+1:], i > 0
		case c < '0' || c > '9':
			return 0, nil, false
		}
		n = n*10 + uint64(c-'0')
	}
	return 0, nil, false
}

// Event is the JSON of peers without their own message format: the same fields as this
// library's, so that the bytes compare.
func Event(content string) []byte {
	b, err := json.Marshal(struct {
		Type    string `json:"type"`
		ID      string `json:"id"`
		Sender  string `json:"sender"`
		Content string `json:"content"`
		Time    string `json:"time"`
	}{"message", "0123456789abcdef-1000", Sender, content, time.Now().UTC().Format("2006-01-02T15:04:05.000Z")})
	if err != nil {
		panic(err) // strings alone
	}
	return b
}

// Sender is the name of the user who publishes.
const Sender = "bench"

// Answer is the reaction of peers without commands to a command: they parse the JSON and
// acknowledge it.
func Answer(command []byte) ([]byte, error) {
	var c struct {
		Type    string `json:"type"`
		Ref     string `json:"ref"`
		Channel string `json:"channel"`
	}
	if err := json.Unmarshal(command, &c); err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Type    string `json:"type"`
		Ref     string `json:"ref"`
		Code    string `json:"code"`
		Message string `json:"message"`
	}{"error", c.Ref, "not_joined", "not joined: " + c.Channel})
}
