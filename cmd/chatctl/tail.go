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
	// maxLast is the most that -n may ask for, of each channel.
	maxLast = 10_000
	// pageSize is the most that a server gives at once.
	pageSize = 1000
)

var tailCommand = command{
	name:    "tail",
	summary: "follows what is sent",
	about: `Prints messages as they come: those to everyone, to you alone, and to the channels
that -channel names. It goes on until SIGINT or SIGTERM, which is no error. When
the connection breaks, or the server is restarted, it connects again and goes on
behind the last message; stderr tells of that, and where messages may be missing
because the server no longer has them.

A message is one line; at a terminal a long one goes on in rows that begin with blanks.
Ends of lines in it, escape sequences and the like are spelled out (\n, \x1b), and a
name that is not one plain word is in quotes.
`,
	define: func(flags *flag.FlagSet) func(context.Context, *session, []string) error {
		c := new(tailing)
		flags.Func("channel", "follow this `channel`, too; may be given again", c.addChannel)
		flags.BoolVar(&c.asJSON, "json", false,
			"print the protocol's events, a JSON object a line, with nothing in them that a terminal would obey")
		flags.BoolVar(&c.presence, "presence", false, "tell of users who come and go, too")
		cli.Var(flags, &c.last, "n", "", parseLast,
			fmt.Sprintf("begin with the last `messages` of each channel, %d at the most, as far as the server keeps them", maxLast))
		flags.Func("since", "begin behind the message with this `id`, as -json shows it; may be given again, for another channel", c.addSince)
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
	shown   map[string]bool // ids of the history, which may come live as well
	failure string          // why there is no connection, as it was told last
}

func (c *tailing) addChannel(name string) error {
	switch {
	case strings.HasPrefix(name, "@"):
		return errors.New("one's own channel is followed as it is, and nobody else's can be")
	case !chat.ValidChannel(name):
		return errors.New("it cannot be a channel's name")
	}
	if !slices.Contains(c.channels, name) {
		c.channels = append(c.channels, name)
	}
	return nil
}

func (c *tailing) addSince(id string) error {
	channel, _, err := chat.ParseID(id)
	if err != nil {
		return errors.New("it is no message's id")
	}
	if strings.HasPrefix(channel, "@") {
		channel = "@" // nobody else's
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
		return nil // that is how it is ended
	}
	return s.explain(err)
}

// options puts the ids of -since in the order of the channels.
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

// follow prints what comes until ctx ends, or something that ends it for good.
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
		if _, ok := event.(client.Connected); ok && first {
			first = false
			continue // as was asked for
		}
		if err := c.show(event); err != nil {
			return err
		}
	}
	return nil
}

// history prints the last messages. It is read once there is a connection: what is
// published meanwhile is in both, and shown once.
func (c *tailing) history(ctx context.Context) error {
	if c.last == 0 {
		return nil
	}
	var all []client.Message
	own := chat.UserChannel(c.client.Username())
	for _, channel := range append([]string{"", own}, c.channels...) {
		msgs, err := c.newest(ctx, channel)
		if status, ok := errors.AsType[*client.StatusError](err); ok && status.Status == http.StatusMethodNotAllowed {
			return explained{"the server keeps no messages: -n has nothing to begin with", err}
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

// newest reads the last messages of a channel, a page at a time, backward.
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

// show prints an event, on stdout what was asked for, else on stderr.
func (c *tailing) show(event client.Event) error {
	switch e := event.(type) {
	case client.Message:
		if c.shown[e.ID] {
			return nil
		}
		return c.print(messageLine(e.Time, e.Channel, e.Sender, e.Content), wire.Message{
			Type: wire.TypeMessage, ID: e.ID, Channel: e.Channel, Sender: e.Sender, Content: e.Content, Time: wire.Time(e.Time),
		})
	case client.Joined:
		return c.showPresence(client.Presence(e), wire.TypeUserJoined, "joined")
	case client.Left:
		return c.showPresence(client.Presence(e), wire.TypeUserLeft, "left")
	case client.Connected:
		c.failure = ""
		if e.Resumed {
			c.tell("connected again, nothing was missed")
		} else {
			c.tell("connected again")
		}
	case client.Gap:
		c.tell("messages " + to(e.Channel) + " may be missing here: the server no longer has what followed the last one")
	case client.Lost:
		c.showLost(e)
	}
	return nil
}

func (c *tailing) showPresence(p client.Presence, kind, verb string) error {
	if !c.presence {
		return nil
	}
	return c.print(presenceLine(p.Time, p.Channel, p.User, verb), wire.Presence{
		Type: kind, Username: p.User, Role: p.Role, Channel: p.Channel, Time: wire.Time(p.Time),
	})
}

// showLost tells why there is no connection, and again when that has changed.
func (c *tailing) showLost(e client.Lost) {
	if errors.Is(e.Err, client.ErrBehind) {
		c.tell("too slow for what comes: it is fetched again once this has caught up")
		return
	}
	why := c.session.explain(e.Err).Error()
	if why != c.failure {
		c.tell("no connection, trying again: " + why)
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

func (c *tailing) tell(text string) {
	fmt.Fprintf(c.session.std.err, "%s: %s\n", program, text)
}

// to says for whom a channel is.
func to(channel string) string {
	switch where := strings.TrimSuffix(where(channel), " "); {
	case where == "":
		return "to everyone"
	default:
		return "to " + where
	}
}
