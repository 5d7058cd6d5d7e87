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
	// minContent has room for the mark that identifies a message of this run.
	minContent = 40
	// maxContent is more than a server accepts by default.
	maxContent = 1 << 20
	// maxAccount bounds the memory in bytes that records which socket got which message.
	maxAccount = 1 << 30
	// settling is how long bench waits without any delivery before missing messages count
	// as lost.
	settling = 5 * time.Second
)

var benchCommand = command{
	name:    "bench",
	summary: "measures a server under load",
	about: `Opens sockets, sends messages at a rate to a channel that all sockets have joined, and
prints the latencies. A latency is the time from when a message was due to be sent until
a socket received it. Bench also counts lost and repeated messages. It sends for -for;
SIGINT and SIGTERM end it early, with the results so far. The exit code is 1 if a
message was lost, repeated or rejected.

By default a server allows 16 sockets per user, and only an admin may send. With
-secret-file, the key that chatd signs tokens with, each socket has a user of its own,
bench-1 and so on, and bench-admin sends, without any login. The channel is new for each
run. Its messages stay in the server's history like any others.

The results include the cost of this process, and the report says how much CPU it used.
Each socket takes an open file here and one at the server.
`,
	define: func(flags *flag.FlagSet) func(context.Context, *session, []string) error {
		b := new(bench)
		cli.Var(flags, &b.sockets, "n", "100", cli.ParseCount, "open this number of `sockets`")
		cli.Var(flags, &b.rate, "rate", "10", parseRate, "send this number of `messages` per second")
		cli.Var(flags, &b.length, "for", "10s", cli.ParsePositive, "send for this `duration`")
		cli.Var(flags, &b.size, "size", "128", parseSize, "the size of a message's content in `bytes`")
		flags.StringVar(&b.secretFile, "secret-file", "",
			"make tokens for the run's own users with the key in this `file`, that of chatd -secret-file")
		flags.BoolVar(&b.everyone, "everyone", false,
			"send to everyone instead of to the run's own channel: all connected users see it")
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
	signer  *chat.HS256 // issues tokens, nil without -secret-file
	name    string      // identifies the run in its messages
	channel string      // "" is everyone's channel
}

// messages returns how many messages the run sends at most.
func (b *bench) messages() int {
	return max(1, int(math.Ceil(b.rate*b.length.Seconds())))
}

func (b *bench) run(ctx context.Context, s *session, args []string) error {
	if len(args) > 0 {
		return cli.Usagef("unexpected argument %q", args[0])
	}
	const each = 12 // bytes per message, and one bit for each socket
	if b.rate*b.length.Seconds()*(each+float64(b.sockets)/8) > maxAccount {
		return cli.Usagef("%d sockets for %v at %g a second are too many to keep track of", b.sockets, b.length, b.rate)
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
		return explained{"the sender was disconnected: " + s.explain(m.silenced).Error(), m.silenced}
	}
	return m.verdict()
}

// prepare reads the secrets and makes the HTTP client.
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

// dial opens a socket as one of the run's users or, without -secret-file, as the session's
// user.
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
		return nil, explained{"the server allows this user no more sockets, by default 16: with -secret-file each socket has its own user", err}
	}
	return c, err
}
