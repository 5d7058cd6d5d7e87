package password_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/reto10/chat/internal/password"
)

func TestCheck(t *testing.T) {
	users := parse(t, fmt.Sprintf("ana:%s:admin\nbob:%s\n", hash(t, "secreto"), hash(t, strings.Repeat("x", 72))))
	type answer struct {
		Role string
		OK   bool
	}
	tests := []struct {
		what, name, password string
		want                 answer
	}{
		{"right", "ana", "secreto", answer{"admin", true}},
		{"right, without a role, of the greatest length", "bob", strings.Repeat("x", 72), answer{"", true}},
		{"wrong", "ana", "secret", answer{}},
		{"another user's", "bob", "secreto", answer{}},
		{"empty", "ana", "", answer{}},
		{"longer than bcrypt reads", "bob", strings.Repeat("x", 73), answer{}},
		{"repeated over a NUL, which bcrypt takes for the same", "ana", "secreto\x00secreto", answer{}},
		{"nobody's", "eva", "secreto", answer{}},
		{"of no name", "", "secreto", answer{}},
	}
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			role, ok, err := users.Check(t.Context(), test.name, test.password)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, answer{role, ok}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHashesOfCryptWork(t *testing.T) {
	// From the C library's crypt(3), which htpasswd -B uses too.
	users := parse(t, "ana:$2y$05$abcdefghijklmnopqrstuutmkKRgkHzrS3haayYHsZx6e9bQ6n6oG")
	if _, ok, err := users.Check(t.Context(), "ana", "secreto"); !ok || err != nil {
		t.Errorf("right password: %v, %v", ok, err)
	}
}

func TestEveryCheckDoesTheSameWork(t *testing.T) {
	line := func(name string, cost int) string {
		return fmt.Sprintf("%s:$2y$%02d$%s\n", name, cost, strings.Repeat("a", 53))
	}
	tests := []struct {
		name  string
		file  string
		users []string
		want  int // rounds of bcrypt
	}{
		{"mixed costs", line("ana", 5) + line("bob", 10) + line("eva", 12), []string{"ana", "bob", "eva", "nobody", ""}, 1 << 12},
		{"one cost", line("ana", 5) + line("bob", 5), []string{"ana", "bob", "nobody"}, 1 << 5},
		{"neighbouring costs", line("ana", 9) + line("bob", 10), []string{"ana", "bob", "nobody"}, 1 << 10},
		{"no users", "", []string{"nobody"}, 1 << password.DefaultCost},
	}
	for _, test := range tests {
		for _, right := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", test.name, right), func(t *testing.T) {
				rounds := 0
				defer password.SetCompare(func(hash, _ []byte) error {
					cost, err := bcrypt.Cost(hash)
					if err != nil {
						t.Errorf("compared with what is no hash: %v", err)
					}
					rounds += 1 << cost
					if right {
						return nil
					}
					return bcrypt.ErrMismatchedHashAndPassword
				})()
				users := parse(t, test.file)
				for _, name := range test.users {
					rounds = 0
					_, ok, err := users.Check(t.Context(), name, "guess")
					if err != nil {
						t.Fatal(err)
					}
					if want := right && name != "" && name != "nobody"; ok != want {
						t.Errorf("%q: %v, want %v", name, ok, want)
					}
					if rounds != test.want {
						t.Errorf("%q took %d rounds, want %d", name, rounds, test.want)
					}
				}
			})
		}
	}
}

func TestImpossiblePasswordsCostNothingForAnybody(t *testing.T) {
	defer password.SetCompare(func(_, _ []byte) error {
		t.Error("compared")
		return nil
	})()
	users := parse(t, "ana:$2y$05$"+strings.Repeat("a", 53))
	for _, name := range []string{"ana", "nobody"} {
		for _, secret := range []string{"", strings.Repeat("x", 73), "a\x00b"} {
			if _, ok, err := users.Check(t.Context(), name, secret); ok || err != nil {
				t.Errorf("%s: %v, %v", name, ok, err)
			}
		}
	}
}

func TestDummyWorkIsReal(t *testing.T) {
	// A dummy that bcrypt refuses to run would take no time at all.
	defer password.SetCompare(func(hash, secret []byte) error {
		err := bcrypt.CompareHashAndPassword(hash, secret)
		if !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			t.Errorf("compare with %q: %v", hash, err)
		}
		return err
	})()
	users := parse(t, fmt.Sprintf("ana:%s\n", hash(t, "secreto")))
	if _, _, err := users.Check(t.Context(), "nobody", "guess"); err != nil {
		t.Fatal(err)
	}
}

func TestChecksAreBounded(t *testing.T) {
	if got, most := password.Slots(), runtime.GOMAXPROCS(0); got < 1 || got > most {
		t.Errorf("%d checks at once on %d cores", got, most)
	}
	synctest.Test(t, func(t *testing.T) {
		const slots = 3
		defer password.SetSlots(slots)() // of this bubble
		var inside, most atomic.Int64
		next := make(chan struct{})
		defer password.SetCompare(func(_, _ []byte) error {
			now := inside.Add(1)
			most.Store(max(most.Load(), now))
			<-next
			inside.Add(-1)
			return nil
		})()
		users := parse(t, "ana:$2y$05$"+strings.Repeat("a", 53))
		check := func(ctx context.Context) error {
			_, _, err := users.Check(ctx, "ana", "guess")
			return err
		}

		const queue = password.MaxWaiting
		ended := make(chan error, slots+queue)
		for range slots + queue - 1 {
			go func() { ended <- check(t.Context()) }()
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- check(ctx) }()
		synctest.Wait()

		if got := inside.Load(); got != int64(slots) {
			t.Errorf("%d at once, want %d", got, slots)
		}
		if err := check(t.Context()); !errors.Is(err, password.ErrBusy) {
			t.Errorf("one more than may wait: %v, want ErrBusy", err)
		}
		cancel() // makes room for another
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("one that left: %v, want context.Canceled", err)
		}
		if err := check(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("one that never came: %v, want context.Canceled", err)
		}
		go func() { ended <- check(t.Context()) }()
		synctest.Wait()

		close(next)
		for range slots + queue {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if got := most.Load(); got > int64(slots) {
			t.Errorf("%d at once at the most, want %d", got, slots)
		}
	})
}

func TestHash(t *testing.T) {
	first, err := password.Hash("secreto")
	if err != nil {
		t.Fatal(err)
	}
	if cost, err := bcrypt.Cost([]byte(first)); cost != password.DefaultCost || err != nil {
		t.Errorf("cost %d, %v, want %d", cost, err, password.DefaultCost)
	}
	if _, ok, err := parse(t, "ana:"+first).Check(t.Context(), "ana", "secreto"); !ok || err != nil {
		t.Errorf("the password of that hash: %v, %v", ok, err)
	}
	for _, secret := range []string{"", strings.Repeat("x", 73), "a\x00b"} {
		if _, err := password.Hash(secret); !errors.Is(err, password.ErrPassword) {
			t.Errorf("%d bytes: %v, want ErrPassword", len(secret), err)
		}
	}
}

func parse(t *testing.T, file string) *password.Users {
	t.Helper()
	users, err := password.Parse(strings.NewReader(file), valid)
	if err != nil {
		t.Fatal(err)
	}
	return users
}

func valid(name string) bool {
	return name != "" && name == strings.TrimSpace(name) && !strings.ContainsRune(name, '\n')
}

func hash(t *testing.T, secret string) []byte {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(hash)
}

// A network that floods, or a user who is tried from everywhere, waits for itself.
func TestAFloodOfChecksDelaysOnlyItself(t *testing.T) {
	const flood = 100
	tests := []struct {
		name  string
		flood func(i int) (user string, networks []string)
		waits int // of the flood, at the most
	}{
		{"from one network, of many users",
			func(i int) (string, []string) { return fmt.Sprint("user", i), []string{"wide", "one"} }, flood - 1},
		{"from many networks of a wide one",
			func(i int) (string, []string) { return "eva", []string{"wide", fmt.Sprint(i)} }, password.WaitOfUser},
		{"from many networks of a wide one, of many users",
			func(i int) (string, []string) { return fmt.Sprint("user", i), []string{"wide", fmt.Sprint(i)} }, flood - 1},
		{"of one user from everywhere",
			func(i int) (string, []string) { return "eva", []string{fmt.Sprint(i), "one"} }, password.WaitOfUser},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer password.SetSlots(1)() // of this bubble
				next := make(chan struct{})
				defer password.SetCompare(func(_, _ []byte) error { <-next; return nil })()
				users := parse(t, "ana:$2y$05$"+strings.Repeat("a", 53))
				check := func(user string, networks []string) <-chan error {
					done := make(chan error, 1)
					go func() {
						_, _, err := users.Check(password.From(t.Context(), password.Stranger, networks), user, "guess")
						done <- err
					}()
					synctest.Wait()
					return done
				}
				var floods []<-chan error
				for i := range flood {
					floods = append(floods, check(test.flood(i)))
				}
				waits := 0
				for _, f := range floods[1:] {
					if len(f) == 0 {
						waits++
					}
				}
				if waits != test.waits {
					t.Errorf("%d of the flood wait, want %d", waits, test.waits)
				}
				ana := check("ana", []string{"hers", "hers"})
				for range 2 * password.WaitOfUser {
					if len(ana) > 0 {
						break
					}
					next <- struct{}{}
					synctest.Wait()
				}
				if len(ana) == 0 {
					t.Fatal("another user from elsewhere waits for the flood")
				}
				if err := <-ana; err != nil {
					t.Errorf("another user from elsewhere: %v", err)
				}
				close(next)
				for _, f := range floods {
					if err := <-f; err != nil && !errors.Is(err, password.ErrBusy) {
						t.Error(err)
					}
				}
			})
		})
	}
}

// A flood of more networks than may wait leaves those who logged in lately their turns.
func TestThoseWhoAreKnownHaveTurnsOfTheirOwn(t *testing.T) {
	for _, standing := range []password.Standing{password.KnownUser, password.KnownNetwork, password.Stranger} {
		t.Run(string(standing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer password.SetSlots(1)() // of this bubble
				next := make(chan struct{})
				defer password.SetCompare(func(_, _ []byte) error { <-next; return nil })()
				users := parse(t, "ana:$2y$05$"+strings.Repeat("a", 53))
				check := func(standing password.Standing, user, network string) <-chan error {
					done := make(chan error, 1)
					go func() {
						_, _, err := users.Check(password.From(t.Context(), standing, []string{network}), user, "guess")
						done <- err
					}()
					return done
				}
				var flood []<-chan error
				for i := range password.MaxWaiting + 100 {
					flood = append(flood, check(password.Stranger, fmt.Sprint(i), fmt.Sprint("net", i)))
				}
				synctest.Wait()
				ana := check(standing, "ana", "hers")
				synctest.Wait()
				if len(ana) > 0 {
					t.Fatalf("refused at once: %v", <-ana)
				}
				if standing != password.Stranger {
					for range 3 {
						next <- struct{}{}
						synctest.Wait()
					}
					if len(ana) == 0 {
						t.Fatal("waits for the flood")
					}
					if err := <-ana; err != nil {
						t.Error(err)
					}
				}
				close(next)
				for _, f := range flood {
					if err := <-f; err != nil && !errors.Is(err, password.ErrBusy) {
						t.Error(err)
					}
				}
				if standing == password.Stranger { // her turn came at some time
					if err := <-ana; err != nil && !errors.Is(err, password.ErrBusy) {
						t.Error(err)
					}
				}
			})
		})
	}
}
