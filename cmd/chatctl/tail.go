package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
	"github.com/reto10/chat/internal/cli"
	"github.com/reto10/chat/internal/wire"
)

const (
	// maxLast bounds -n.
	maxLast = 10_000
	// pageSize is the largest page that a server returns.
	pageSize = 1000
)

var tailCommand = command{
	name:    "tail",
	summary: "follows messages",
	about: `Prints messages as they arrive: those to everyone, those to you alone, and those to
the channels of -channel. It runs until SIGINT or SIGTERM and then exits with 0. If
the connection breaks or the server restarts, tail reconnects and resumes after the
last message. It reports this on stderr, and gaps whose messages the server no longer
has.

A message is one line; a terminal shows a long one in rows that begin with blanks. Line
ends, escape sequences and the like in it are spelled out (\n, \x1b). A name that is
not one plain word is in quotes.
`,
	define: func(flags *flag.FlagSet) func(context.Context, *session, []string) error {
		c := new(tailing)
		flags.Func("channel", "also follow this `channel`; may be repeated", c.addChannel)
		flags.BoolVar(&c.asJSON, "json", false,
			"print the protocol's events, one JSON object per line, escaped so that no terminal obeys them")
		flags.BoolVar(&c.presence, "presence", false, "also print joins and leaves of users")
		cli.Var(flags, &c.last, "n", "", parseLast,
			fmt.Sprintf("begin with the last `messages` of each channel, at most %d, as far as the server keeps them", maxLast))
		flags.Func("since", "begin after the message with this `id`, as -json prints it; may be repeated for other channels", c.addSince)
		return c.run
	},
}

type tailing struct {
	channels []string
	last     int
	since    map[string]string // by channel
	asJSON   bool
	presence bool

	session *session
	client  *client.Client
	shown   map[string]bool // ids of the history, whose messages may also arrive live
	failure string          // the reason for the lost connection that was printed last
}

func (c *tailing) addChannel(name string) error {
	switch {
	case strings.HasPrefix(name, "@"):
		return errors.New("your user channel is always followed, and those of others cannot be")
	case !chat.ValidChannel(name):
		return errors.New("not a valid channel name")
	}
	if !slices.Contains(c.channels, name) {
		c.channels = append(c.channels, name)
	}
	return nil
}

func (c *tailing) addSince(id string) error {
	channel, _, err := chat.ParseID(id)
	if err != nil {
		return errors.New("not the id of a message")
	}
	if strings.HasPrefix(channel, "@") {
		channel = "@" // only the user's channel is possible
	}
	if c.since == nil {
		c.since = make(map[string]string)
	}
	c.since[channel] = id
	return nil
}

func parseLast(s string) (int, error) {
	if s == "0" {
		return 0, nil
	}
	n, err := cli.ParseCount(s)
	if err == nil && n > maxLast {
		err = fmt.Errorf("more than %d", maxLast)
	}
	return n, err
}

func (c *tailing) run(ctx context.Context, s *session, args []string) error {
	switch {
	case len(args) > 0:
		return cli.Usagef("unexpected argument %q", args[0])
	case c.last > 0 && c.since != nil:
		return cli.Usagef("-n and -since exclude each other")
	}
	opts, err := c.options(s)
	if err != nil {
		return err
	}
	c.session = s
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if stdout, ok := s.std.out.(output); ok {
		go func() {
			unread(stdout.File)
			cancel()
		}()
	}
	err = c.follow(ctx, opts)
	if ctx.Err() != nil {
		return nil // the regular end
	}
	return s.explain(err)
}

// options returns the client options, with the ids of -since in the order of the channels.
func (c *tailing) options(s *session) ([]client.Option, error) {
	var since []string
	left := len(c.since)
	for _, channel := range append([]string{"", "@"}, c.channels...) {
		id, ok := c.since[channel]
		if ok {
			left--
		}
		since = append(since, id)
	}
	if left > 0 {
		for channel := range c.since {
			if channel != "" && channel != "@" && !slices.Contains(c.channels, channel) {
				return nil, cli.Usagef("-since %s needs -channel %s", c.since[channel], channel)
			}
		}
	}
	return s.options(client.WithChannels(c.channels...), client.WithSince(since...))
}

// follow prints events until ctx or the client ends.
func (c *tailing) follow(ctx context.Context, opts []client.Option) (err error) {
	if c.client, err = client.Dial(ctx, c.session.url.String(), opts...); err != nil {
		return err
	}
	defer func() { _ = c.client.Close() }() // always nil
	if err := c.history(ctx); err != nil {
		return err
	}
	first := true
	for event, err := range c.client.Events(ctx) {
		if err != nil {
			return err
		}
		if _, ok := event.(client.Welcome); ok && first {
			first = false
			continue // nothing to report
		}
		if err := c.show(event); err != nil {
			return err
		}
	}
	return nil
}

// history prints the last messages. It reads them once the client is connected: a message
// that is published meanwhile is in both, and is shown once.
func (c *tailing) history(ctx context.Context) error {
	if c.last == 0 {
		return nil
	}
	var all []client.Message
	own := chat.UserChannel(c.client.Username())
	for _, channel := range append([]string{"", own}, c.channels...) {
		msgs, err := c.newest(ctx, channel)
		if status, ok := errors.AsType[*client.StatusError](err); ok && status.Status == http.StatusMethodNotAllowed {
			return explained{"the server keeps no history: -n has no effect", err}
		}
		if err != nil {
			return err
		}
		all = append(all, msgs...)
	}
	slices.SortStableFunc(all, func(a, b client.Message) int { return a.Time.Compare(b.Time) })
	c.shown = make(map[string]bool, len(all))
	for _, m := range all {
		if err := c.show(m); err != nil {
			return err
		}
		c.shown[m.ID] = true
	}
	return nil
}

// newest reads the last messages of a channel, page by page from the newest.
func (c *tailing) newest(ctx context.Context, channel string) ([]client.Message, error) {
	var msgs []client.Message
	query := client.Query{Channel: channel, Newest: true}
	for {
		query.Limit = min(c.last-len(msgs), pageSize)
		page, err := c.client.Messages(ctx, query)
		if err != nil {
			return nil, err
		}
		msgs = append(slices.Clone(page.Messages), msgs...)
		if !page.More || len(page.Messages) == 0 || len(msgs) >= c.last {
			return msgs, nil
		}
		query = client.Query{Channel: channel, Before: msgs[0].ID}
	}
}

// show prints an event: messages and presence on stdout, the rest on stderr.
func (c *tailing) show(event client.Event) error {
	switch e := event.(type) {
	case client.Message:
		if c.shown[e.ID] {
			return nil
		}
		return c.print(messageLine(e.Time, e.Channel, e.Sender, e.Content), wire.Message{
			Type: wire.TypeMessage, ID: e.ID, Channel: e.Channel, Sender: e.Sender, Content: e.Content, Time: wire.Time(e.Time),
		})
	case client.UserJoined:
		return c.showPresence(e, wire.TypeUserJoined, "joined")
	case client.UserLeft:
		return c.showPresence(client.UserJoined(e), wire.TypeUserLeft, "left")
	case client.Welcome:
		c.failure = ""
		if e.Resumed {
			c.warn("reconnected, no message was missed")
		} else {
			c.warn("reconnected")
		}
	case client.Gap:
		c.warn("messages " + to(e.Channel) + " may be missing here: the server no longer has those after the last one")
	case client.Lost:
		c.showLost(e)
	}
	return nil
}

func (c *tailing) showPresence(p client.UserJoined, kind, verb string) error {
	if !c.presence {
		return nil
	}
	return c.print(presenceLine(p.Time, p.Channel, p.User, verb), wire.Presence{
		Type: kind, Username: p.User, Role: p.Role, Channel: p.Channel, Time: wire.Time(p.Time),
	})
}

// showLost prints why the connection was lost, once per reason.
func (c *tailing) showLost(e client.Lost) {
	if errors.Is(e.Err, client.ErrBehind) {
		c.warn("too slow: messages were dropped and are read again")
		return
	}
	why := c.session.explain(e.Err).Error()
	if why != c.failure {
		c.warn("not connected, retrying: " + why)
	}
	c.failure = why
}

func (c *tailing) print(text string, event any) error {
	if !c.asJSON {
		return c.session.std.say(text)
	}
	_, err := c.session.std.out.Write([]byte(jsonLine(wire.Marshal(event))))
	return err
}

func (c *tailing) warn(text string) {
	fmt.Fprintf(c.session.std.err, "%s: %s\n", program, text)
}

// to names the receivers of a channel.
func to(channel string) string {
	switch where := strings.TrimSuffix(where(channel), " "); {
	case where == "":
		return "to everyone"
	default:
		return "to " + where
	}
}
