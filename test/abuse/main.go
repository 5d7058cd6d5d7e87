// Abuse attacks a chatd as a hostile user and as an unauthenticated stranger. It prints the
// effect on other users: the latency of publishing, whether logins and new sockets work, and
// the server's memory, CPU and log lines.
//
//	go run ./test/abuse                      # every attack
//	go run ./test/abuse -attack history      # those whose name begins with it
//	go run ./test/abuse -chatd /tmp/chatd    # against another binary
//
// Each attack gets its own server, on loopback, with an empty history. Other users are
// observed twice for the same time, first without the attack, then with it. The attacker is
// its own process with a low priority, because real attackers have their own processors.
// The command checks nothing: the exit code is 1 only if an attack could not be run.
//
// If an attack needs a policy that lets users publish, the server is this program itself,
// with the library that it was built with. To compare another version of the library, copy
// this directory into that version's tree and run it there.
//
// If -chatd is a chatd-cluster, it reads CHATD_REGISTRY and CHATD_HISTORY from the
// environment.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// longest bounds -for.
const longest = time.Minute

func main() {
	if os.Getenv(serveVariable) != "" {
		os.Exit(serve())
	}
	if task := os.Getenv(attackVariable); task != "" {
		os.Exit(runAttack(task, os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "abuse: %v\n", err)
		}
		stop()
		os.Exit(1)
	}
}

// settings are the values of the flags.
type settings struct {
	attack string        // prefix of the names of those to run
	chatd  string        // a binary; "": built from this tree
	length time.Duration // of each observation
	cost   int           // of the users' bcrypt hashes
	small  bool          // a tenth of the messages and of the connections
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("abuse", flag.ContinueOnError)
	var s settings
	flags.StringVar(&s.attack, "attack", "", "run the attacks whose `name` begins with this: "+strings.Join(names(attacks), ", "))
	flags.StringVar(&s.chatd, "chatd", "", "attack this `binary` instead of one that is built from this tree")
	flags.DurationVar(&s.length, "for", 10*time.Second, "observe for this `duration`, without each attack and then with it; at most a minute")
	flags.IntVar(&s.cost, "cost", 10, "the bcrypt `cost` of the users' passwords")
	flags.BoolVar(&s.small, "small", false, "attack with a tenth of the messages and of the connections")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if s.length <= 0 || s.length > longest {
		return fmt.Errorf("-for %v: it has to be more than nothing and at most %v", s.length, longest)
	}
	chosen := choose(attacks, s.attack)
	if len(chosen) == 0 {
		return fmt.Errorf("-attack %s: there are %s", s.attack, strings.Join(names(attacks), ", "))
	}
	bench, err := newBench(ctx, s)
	if err != nil {
		return err
	}
	defer bench.remove()
	for _, a := range chosen {
		if err := bench.stage(ctx, a, out); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	return nil
}

// attack is one attack on a server.
type attack struct {
	name    string
	what    string                                    // for the heading, in a sentence
	library bool                                      // the server is this program, whose users may publish
	prepare func(ctx context.Context, b *arena) error // before anybody is observed; may be nil
	run     func(ctx context.Context, b *arena)       // until ctx ends
	ends    bool                                      // by itself, perhaps behind the observation: see endWithin
}

// endWithin bounds an attack that ends by itself, in observations: 45 s with the default of
// 10 s.
const endWithin = 4.5

// attacks are all attacks, in the order in which they run.
var attacks = []attack{
	{"history/many", "24 connections of one user read pages of 1,000 messages of 32 KiB", false, fillHistory("x"), readPages(24), false},
	{"history/few", "4 connections of one user read pages of 1,000 messages of 32 KiB", false, fillHistory("x"), readPages(4), false},
	{"history/unread", "300 connections ask for pages of '<' and do not read them", false, fillHistory("<"), leavePages(300), false},
	{"history/resume", "160 sockets of ten users resume from the first of 1,000 messages, and read slowly", false, fillHistory("x"), resumeSlowly(160), false},
	{"history/join", "80 sockets of ten users join with since, again and again, and read slowly", false, fillHistory("x"), joinSlowly(80), false},
	{"sockets/open", "one user opens sockets as fast as possible", false, nil, openSockets(256), false},
	{"sockets/stalled", "a socket does not read while messages come", false, nil, stall, true},
	{"rate/reconnect", "one user publishes on sockets that reconnect when the burst is used up", true, nil, publishReconnecting(8), false},
	{"rate/post", "one user publishes by POST /messages", true, nil, publishByPost(16), false},
	{"login/wrong", "wrong passwords come from 256 networks of one IPv6 /56", false, nil, guessFromNetworks(64), false},
	{"login/correct", "one user logs in with the correct password from four addresses, again and again", false, nil, logInAgain(4, 16), false},
	{"login/foreign", "a foreign page posts text/plain to /login in the name of others", false, nil, lockOut(4), false},
	{"amplify/ranges", "4 connections ask for thousands of ranges of the page", false, nil, askRanges(4), false},
	{"amplify/readyz", "16 connections ask for /readyz", false, nil, askReady(16), false},
}

func names(list []attack) []string {
	var found []string
	for _, a := range list {
		found = append(found, a.name)
	}
	return found
}

func choose(list []attack, prefix string) []attack {
	var chosen []attack
	for _, a := range list {
		if strings.HasPrefix(a.name, prefix) {
			chosen = append(chosen, a)
		}
	}
	return chosen
}
