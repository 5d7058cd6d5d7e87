package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/reto10/chat"
)

const (
	password = "correct horse battery"
	secret   = "0123456789abcdef0123456789abcdef"
	visitors = 32 // users who have nothing to do with the attack
	hostile  = 10 // users who attack
	admins   = 20
)

// bench is what all attacks share: a server's files and tokens.
type bench struct {
	settings
	dir    string
	binary string // chatd
	signer *chat.HS256
}

// newBench builds a chatd, unless -chatd names one, and writes its files. The caller removes
// the bench.
func newBench(ctx context.Context, s settings) (_ *bench, err error) {
	b := &bench{settings: s, binary: s.chatd}
	if b.signer, err = chat.NewHS256([]byte(secret)); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "abuse"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.remove()
		}
	}()
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "chatd")
		if said, err := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "github.com/reto10/chat/cmd/chatd").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building chatd: %w\n%s", err, said)
		}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), s.cost)
	if err != nil {
		return nil, fmt.Errorf("-cost: %w", err)
	}
	var users strings.Builder
	for kind, n := range map[string]int{"visitor": visitors, "mallory": hostile} {
		for i := range n {
			fmt.Fprintf(&users, "%s%d:%s\n", kind, i, hash)
		}
	}
	if err := os.WriteFile(b.users(), []byte(users.String()), 0o600); err != nil {
		return nil, err
	}
	return b, os.WriteFile(b.secret(), []byte(secret), 0o600)
}

func (b *bench) users() string  { return filepath.Join(b.dir, "users") }
func (b *bench) secret() string { return filepath.Join(b.dir, "secret") }
func (b *bench) remove()        { _ = os.RemoveAll(b.dir) }

// token returns a token of a user.
func (b *bench) token(name, role string) string {
	token, err := b.signer.Issue(chat.User{Name: name, Role: role})
	if err != nil {
		panic(err) // the names and roles are this program's
	}
	return token.AccessToken
}

// less returns a number of messages or connections, a tenth with -small.
func (b *bench) less(n int) int {
	if b.small {
		return max(1, n/10)
	}
	return n
}

// arena is the server of an attack, and the attack's tally.
type arena struct {
	*bench
	*server
	first string // id of the first message of bigChannel
	tally tally
}

// stage runs an attack on its own server and prints what other users experience.
func (b *bench) stage(ctx context.Context, a attack, out io.Writer) error {
	s, err := b.startServer(ctx, a.library)
	if err != nil {
		return err
	}
	defer s.stop()
	field := &arena{bench: b, server: s}
	if a.prepare != nil {
		if err := a.prepare(ctx, field); err != nil {
			return fmt.Errorf("preparing: %w", err)
		}
	}
	quiet, err := field.observe(ctx, b.length)
	if err != nil {
		return err
	}
	attacking, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	var failed error
	begun := make(chan struct{})
	running.Go(func() { failed = field.attackApart(attacking, a, sync.OnceFunc(func() { close(begun) })) })
	<-begun
	loud, err := field.observe(ctx, b.length)
	if a.ends {
		late := time.AfterFunc(time.Duration((endWithin-1)*float64(b.length)), end)
		defer late.Stop()
	} else {
		end()
	}
	running.Wait()
	end()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s: %s\n", a.name, a.what)
	if err := printTable(out, quiet, loud); err != nil {
		return err
	}
	for _, line := range field.tally.lines() {
		fmt.Fprintln(out, "  the attack: "+line)
	}
	if s.ended() {
		fmt.Fprintln(out, "  the server has ended:\n"+s.lastLines())
	}
	return ctx.Err()
}

// tally counts an attack's requests and their answers.
type tally struct {
	mu     sync.Mutex // guards what follows
	counts map[string]int64
	notes  []string
}

func (t *tally) count(what string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = make(map[string]int64)
	}
	t.counts[what] += n
}

func (t *tally) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// add adds another tally.
func (t *tally) add(r result) {
	for what, n := range r.Counts {
		t.count(what, n)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes = append(t.notes, r.Notes...)
}

// perRequest records the server's cost per answered request, including the other users'.
func (t *tally) perRequest(spent time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var answered int64
	for what, n := range t.counts {
		if len(what) == len("200") && what[0] >= '1' && what[0] <= '5' {
			answered += n
		}
	}
	if answered > 0 {
		t.notes = append(t.notes, fmt.Sprintf("%v of CPU for each of its %d requests", (spent/time.Duration(answered)).Round(time.Microsecond), answered))
	}
}
