package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
	"github.com/reto10/chat/internal/cli"
)

const (
	// maxLine bounds a line of stdin in bytes; servers accept far less.
	maxLine = 1 << 20
	// patience is how long send retries a line while it cannot connect.
	patience = time.Minute
	// pause is the time between two of these attempts.
	pause = time.Second
)

var sendCommand = command{
	name:    "send",
	args:    "text…",
	summary: "sends a message, or with - the lines of stdin",
	about: `Sends the text to everyone, to a channel or to one user, with a space between its
words. If the text is -, each line of stdin is a message; empty lines are skipped.
Send waits until a line is stored before it sends the next. It stops at the first
line that the server rejects, and prints the number of that line.

A message that may have been stored is not sent again: if the connection breaks
before the answer, send stops and says so. While it cannot connect, send retries a
line for a minute, except the first one.
`,
	define: func(flags *flag.FlagSet) func(context.Context, *session, []string) error {
		c := new(sending)
		flags.StringVar(&c.channel, "channel", "", "send to this `channel` instead of everyone")
		flags.StringVar(&c.to, "to", "", "send only to this `user`")
		flags.BoolVar(&c.ids, "ids", false, "print the id of each message once it is stored")
		return c.run
	},
}

type sending struct {
	channel, to string
	ids         bool

	session *session
	api     *client.API
}

func (c *sending) run(ctx context.Context, s *session, args []string) error {
	switch {
	case c.channel != "" && c.to != "":
		return cli.Usagef("-channel and -to exclude each other")
	case c.to != "" && !chat.ValidUsername(c.to):
		return cli.Usagef("-to %q cannot be a user's name", c.to)
	case c.channel != "" && !chat.ValidChannel(c.channel):
		return cli.Usagef("-channel %q cannot be a channel's name", c.channel)
	case len(args) == 0:
		return cli.Usagef("no text to send; - sends the lines of stdin")
	}
	if c.to != "" {
		c.channel = chat.UserChannel(c.to)
	}
	lines := len(args) == 1 && args[0] == "-"
	text := strings.Join(args, " ")
	if err := sendable(text); err != nil {
		return cli.UsageError{Err: err}
	}
	var err error
	if c.api, err = s.api(); err != nil {
		return err
	}
	c.session = s
	if !lines {
		return s.explain(c.send(ctx, text))
	}
	return c.sendLines(ctx)
}

// send publishes one message.
func (c *sending) send(ctx context.Context, text string) error {
	m, err := c.api.Publish(ctx, text, toChannel(c.channel)...)
	switch {
	case errors.Is(err, client.ErrUnavailable):
		return explained{c.session.explain(err).Error() + ": the message may have been stored and is not sent again", err}
	case err != nil:
		return err
	}
	if c.ids {
		_, err = fmt.Fprintln(c.session.std.out, harmless(m.ID))
	}
	return err
}

// toChannel returns the options for a message to a channel; "" is everyone's channel.
func toChannel(name string) (opts []client.BroadcastOption) {
	if name != "" {
		opts = append(opts, client.To(name))
	}
	return opts
}

// sendLines publishes the lines of stdin.
func (c *sending) sendLines(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines, sent := readLines(ctx, c.session.std.in), 0
	for {
		var l line
		select {
		case next, ok := <-lines:
			if !ok {
				return nil
			}
			l = next
		case <-ctx.Done():
			return fmt.Errorf("interrupted%s", before(sent))
		}
		if l.err == nil {
			l.err = sendable(l.text)
		}
		if l.err == nil {
			l.err = c.sendLine(ctx, l.text, sent > 0)
		}
		switch {
		case l.err == nil:
			sent++
		case errors.Is(l.err, errNotRead):
			return l.err
		default:
			return fmt.Errorf("line %d: %w%s", l.number, c.session.explain(l.err), before(sent))
		}
	}
}

func before(sent int) string {
	switch sent {
	case 0:
		return ""
	case 1:
		return "; one message before that was sent"
	}
	return fmt.Sprintf("; %d messages before that were sent", sent)
}

// sendLine publishes one of several lines. With wait, it retries while it cannot connect,
// because the line was then certainly not sent.
func (c *sending) sendLine(ctx context.Context, text string, wait bool) error {
	overdue := time.After(patience)
	for {
		err := c.send(ctx, text)
		away, ok := errors.AsType[*net.OpError](err)
		if !wait || !ok || away.Op != "dial" {
			return err
		}
		select {
		case <-time.After(pause):
		case <-overdue:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// sendable returns an error for a text that every server rejects.
func sendable(text string) error {
	switch {
	case text == "":
		return errors.New("the text is empty")
	case !utf8.ValidString(text):
		return errors.New("the text is not UTF-8")
	case strings.ContainsRune(text, 0):
		return errors.New("the text contains a NUL")
	}
	return nil
}

// line is a line of stdin.
type line struct {
	number int
	text   string
	err    error // why it could not be read
}

// readLines returns the non-empty lines of r, without line ends, until reading fails or ctx
// ends. Its goroutine ends with the process if a read of r blocks.
func readLines(ctx context.Context, r io.Reader) <-chan line {
	lines := make(chan line)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(r)
		scanner.Buffer(nil, maxLine)
		number := 0
		give := func(l line) bool {
			select {
			case lines <- l:
				return true
			case <-ctx.Done():
				return false
			}
		}
		for scanner.Scan() {
			number++
			if text := scanner.Text(); text != "" && !give(line{number: number, text: text}) {
				return
			}
		}
		if err := scanner.Err(); errors.Is(err, bufio.ErrTooLong) {
			give(line{number: number + 1, err: fmt.Errorf("over %d bytes", maxLine)})
		} else if err != nil {
			give(line{number: number + 1, err: fmt.Errorf("reading stdin: %w", err)})
		}
	}()
	return lines
}
