package redisregistry

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/reto10/chat"
)

// A body is a message without its position and channel, as Redis stores it: the time (Unix, in
// ms), a NUL, the sender, a NUL, the content. None of them contains a NUL. What is published
// is a position, "era seq", then the bodies of one or several messages in a row, each after a
// NUL.

var errNUL = errors.New("the sender or the content contains a NUL")

// checkBody returns an error if m cannot be a body.
func checkBody(m *chat.Message) error {
	if strings.IndexByte(m.Content, 0) >= 0 || strings.IndexByte(m.Sender, 0) >= 0 {
		return errNUL
	}
	return nil
}

// appendBody appends the body of a message.
func appendBody(to []byte, m *chat.Message) []byte {
	to = strconv.AppendInt(to, m.Time.UnixMilli(), 10)
	to = append(to, 0)
	to = append(to, m.Sender...)
	to = append(to, 0)
	return append(to, m.Content...)
}

// cutBody decodes the first body of a text and returns what follows it.
func cutBody(channel string, p chat.Position, text string) (m chat.Message, rest string, err error) {
	at, rest, timed := strings.Cut(text, "\x00")
	sender, rest, sent := strings.Cut(rest, "\x00")
	content, rest, _ := strings.Cut(rest, "\x00")
	if !timed || !sent {
		return m, "", errors.New("decoding a message: want a time, a sender and a content")
	}
	ms, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return m, "", errors.New("decoding a message: its time is no number")
	}
	return chat.Message{Position: p, Channel: channel, Sender: sender, Content: content, Time: time.UnixMilli(ms).UTC()}, rest, nil
}

// encodePublished returns messages of a channel in a row in the form in which the publish
// script publishes them too.
func encodePublished(msgs []chat.Message) string {
	p := msgs[0].Position
	text := append([]byte(p.Epoch), ' ')
	text = strconv.AppendUint(text, p.Seq, 10)
	for i := range msgs {
		text = appendBody(append(text, 0), &msgs[i])
	}
	return string(text)
}

// decodePublished decodes what encodePublished, or the publish script, published.
func (r *Registry) decodePublished(channel, text string) ([]chat.Message, error) {
	first, rest, more := strings.Cut(text, "\x00")
	p, err := positionOf(first)
	if err != nil {
		return nil, err
	}
	if !more {
		return nil, errors.New("decoding messages: there is none")
	}
	p.Epoch = r.eras.kept(bucketOf(channel), p.Epoch)
	msgs := make([]chat.Message, 0, (strings.Count(rest, "\x00")+1)/3)
	for more {
		var m chat.Message
		if m, rest, err = cutBody(channel, p, rest); err != nil {
			return nil, err
		}
		msgs = append(msgs, m)
		p.Seq++
		more = rest != ""
	}
	return msgs, nil
}
