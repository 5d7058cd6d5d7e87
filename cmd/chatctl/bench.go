package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
	"github.com/reto10/chat/internal/cli"
)

const (
	// minContent has room for what a message is recognized by.
	minContent = 40
	// maxContent is more than a server takes unless told so.
	maxContent = 1 << 20
	// maxAccount bounds the memory in bytes that says which socket got what.
	maxAccount = 1 << 30
	// settling is how long nothing may come any more before what is missing counts
	// as lost.
	settling = 5 * time.Second
)

var benchCommand = command{
	name:    "bench",
	summary: "opens sockets, sends at a rate, measures",
	about: `Opens sockets, sends messages at a rate to the channel that all of them are in, and
prints how long these took from when they were due to being received, with what was
lost and what came twice. It sends for -for and then ends by itself; SIGINT and
SIGTERM have it end early, with what was measured so far. That something was lost,
came twice or was refused makes its exit code 1.

A server lets a user have 16 sockets unless told otherwise, and the one who sends
has to be an admin. With -secret-file, the key that chatd signs tokens with, each
socket is a user of its own, bench-1 and so on, and bench-admin sends; nobody has
to log in. Messages go to a channel of this run's own, and stay in the server's
history as others do.

What it measures has this process in it: that says how much of the CPU it used. A
socket costs it and the server an open file each.
`,
	define: func(flags *flag.FlagSet) func(context.Context, *session, []string) error {
		b := new(bench)
		cli.Var(flags, &b.sockets, "n", "100", cli.ParseCount, "open so many `sockets`")
		cli.Var(flags, &b.rate, "rate", "10", parseRate, "send so many `messages` a second")
		cli.Var(flags, &b.length, "for", "10s", cli.ParsePositive, "send for this `duration`")
		cli.Var(flags, &b.size, "size", "128", parseSize, "the `bytes` of a message's content")
		flags.StringVar(&b.secretFile, "secret-file", "",
			"make tokens for users of its own with the key in this `file`, as chatd -secret-file has it")
		flags.BoolVar(&b.everyone, "everyone", false,
			"send to everyone instead of to a channel of its own: whoever is connected sees it")
		return b.run
	},
}

func parseRate(s string) (float64, error) {
	rate, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(rate) || rate <= 0 || rate > 1e6 {
		return 0, errors.New("not a number above zero, and a million at the most")
	}
	return rate, nil
}

func parseSize(s string) (int, error) {
	size, err := strconv.Atoi(s)
	if err != nil || size < minContent || size > maxContent {
		return 0, fmt.Errorf("not a number of %d to %d", minContent, maxContent)
	}
	return size, nil
}

// bench is one run.
type bench struct {
	sockets    int
	rate       float64
	length     time.Duration
	size       int
	secretFile string
	everyone   bool

	session *session
	http    *http.Client
	signer  *chat.HS256 // makes tokens, nil without -secret-file
	name    string      // of this run, in its messages
	channel string      // "" for everyone's
}

// messages is how many there will be at the most.
func (b *bench) messages() int {
	return max(1, int(math.Ceil(b.rate*b.length.Seconds())))
}

func (b *bench) run(ctx context.Context, s *session, args []string) error {
	if len(args) > 0 {
		return cli.Usagef("unexpected argument %q", args[0])
	}
	const each = 12 // bytes, and a bit of each socket
	if b.rate*b.length.Seconds()*(each+float64(b.sockets)/8) > maxAccount {
		return cli.Usagef("%d sockets for %v at %g a second are more than can be kept account of", b.sockets, b.length, b.rate)
	}
	if err := checkOpenFiles(b.sockets + 1); err != nil {
		return err
	}
	b.session = s
	if err := b.prepare(); err != nil {
		return err
	}
	m := newMeasure(b.name, b.messages())
	if err := b.measure(ctx, m); err != nil {
		return s.explain(err)
	}
	if err := m.report(s.std.out, b); err != nil {
		return err
	}
	if m.silenced != nil {
		return explained{"the one who sends was cut off: " + s.explain(m.silenced).Error(), m.silenced}
	}
	return m.verdict()
}

// prepare reads what is needed to connect.
func (b *bench) prepare() (err error) {
	b.name = strings.ToLower(rand.Text()[:8])
	if !b.everyone {
		b.channel = "bench-" + b.name
	}
	if b.secretFile != "" {
		if err := b.readSecret(); err != nil {
			return err
		}
	} else if _, err := b.session.identity(); err != nil { // asks for the password
		return err
	}
	b.session.warnOfPlainHTTP()
	transport, err := b.session.transport()
	b.http = &http.Client{Transport: transport}
	return err
}

func (b *bench) readSecret() error {
	for _, who := range []string{"user", "token", "token-file"} {
		if b.session.given[who] == "-"+who {
			return cli.Usagef("-secret-file and -%s exclude each other", who)
		}
	}
	secret, err := readSecret(b.secretFile)
	if err != nil {
		return fmt.Errorf("reading the secret: %w", err)
	}
	secret = strings.TrimSuffix(strings.TrimSuffix(secret, "\n"), "\r") // as chatd does
	if b.signer, err = chat.NewHS256([]byte(secret)); err != nil {
		return fmt.Errorf("using the secret in %s: %w", b.secretFile, err)
	}
	return nil
}

// dial opens a socket as one of the run's users, or where they cannot be made as
// the one that the session is of.
func (b *bench) dial(ctx context.Context, user chat.User, opts ...client.Option) (*client.Client, error) {
	var identity client.Option
	if b.signer != nil {
		identity = client.WithTokenSource(client.TokenSourceFunc(func(context.Context) (string, error) {
			token, err := b.signer.Issue(user)
			return token.AccessToken, err
		}))
	} else {
		var err error
		if identity, err = b.session.identity(); err != nil {
			return nil, err
		}
	}
	opts = append(opts, identity, client.WithHTTPClient(b.http))
	c, err := client.Dial(ctx, b.session.url.String(), opts...)
	if (errors.Is(err, client.ErrReplaced) || errors.Is(err, client.ErrRateLimited)) && b.signer == nil {
		return nil, explained{"the server allows this user no more sockets, 16 unless it was told otherwise: with -secret-file each is of a user of its own", err}
	}
	return c, err
}
