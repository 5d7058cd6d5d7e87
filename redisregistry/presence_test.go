package redisregistry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

func TestAUserIsThereWhileAnyNodeHasOne(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	first := a.connect("ana", "news")
	second := b.connect("ana", "news")
	bob := b.connect("bob")
	a.wantConnected("", "ana as user, 2", "bob as user, 1")
	b.wantConnected("news", "ana as user, 2")
	a.disconnect(first)
	b.wantConnected("news", "ana as user, 1")
	b.leave(second, "news")
	a.wantConnected("news")
	b.disconnect(second)
	b.disconnect(bob)
	a.wantConnected("")
	want := []string{
		`ana joined "" as user, 1 there`,
		`ana joined "news" as user, 1 there`,
		`bob joined "" as user, 2 there`,
		`ana left "news" as user, 0 there`,
		`ana left "" as user, 1 there`,
		`bob left "" as user, 0 there`,
	}
	a.wantTold(want...)
	b.wantTold(want...)
}

func TestAUsersChannelListsThatUserAndAnnouncesNothing(t *testing.T) {
	s := redistest.Start(t)
	a := start(t, clientOf(s))
	a.connect("ana")
	a.wantConnected("@ana", "ana as user, 1")
	a.wantTold(`ana joined "" as user, 1 there`)
}

func TestAnotherRoleIsKnownWhenChannelsAreJoinedAgain(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	ana := a.connect("ana", "news")
	ana.setRole(chat.RoleAdmin)
	for _, channel := range []string{"", "@ana", "news"} {
		a.join(ana, channel)
	}
	b.wantConnected("", "ana as admin, 1")
	b.wantConnected("news", "ana as admin, 1")
	a.disconnect(ana)
	b.wantTold(`ana joined "" as user, 1 there`, `ana joined "news" as user, 1 there`,
		`ana left "news" as admin, 0 there`, `ana left "" as admin, 0 there`)
}

func TestSocketsOfAUserAreCountedAndClosedOnAllNodes(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	var all []*receiver
	for i := range 6 {
		r, n := []*node{a, b}[i%2].connectCounted("ana")
		if n != i+1 {
			t.Errorf("socket %d is the user's %d.", i+1, n)
		}
		all = append(all, r)
	}
	bob := b.connect("bob")
	closed, err := a.CloseUser(t.Context(), "ana", 2, chat.CloseTooMany, "too many")
	if err != nil || closed != 4 {
		t.Errorf("closed %d, %v; want 4", closed, err)
	}
	for i, r := range all[:4] {
		eventually(t, fmt.Sprintf("socket %d to be closed", i), func() bool { return len(r.codes()) > 0 })
		if diff := cmp.Diff([]chat.CloseCode{chat.CloseTooMany}, r.codes()); diff != "" {
			t.Errorf("socket %d (-want +got):\n%s", i, diff)
		}
	}
	for i, r := range append(all[4:], bob) {
		if codes := r.codes(); len(codes) > 0 {
			t.Errorf("socket %d to be kept was closed with %v", i, codes)
		}
	}
	if closed, err := b.CloseUser(t.Context(), "nobody", 0, chat.CloseDisconnected, ""); err != nil || closed != 0 {
		t.Errorf("of nobody %d were closed, %v", closed, err)
	}
}

func TestSocketsThatComeTogetherAreCountedOneByOne(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	const each = 20
	var mu sync.Mutex
	counted := make(map[int]int)
	var all sync.WaitGroup
	for i := range 2 * each {
		all.Go(func() {
			n, err := []*node{a, b}[i%2].Add(context.Background(), newReceiver("ana", chat.RoleUser), 0)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			counted[n]++
		})
	}
	all.Wait()
	want := make(map[int]int)
	for i := range 2 * each {
		want[i+1] = 1
	}
	if diff := cmp.Diff(want, counted); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestManyComeAndGo(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	const users = 500
	var all sync.WaitGroup
	for i := range users {
		all.Go(func() {
			r := newReceiver(fmt.Sprint("user", i), chat.RoleUser)
			if _, err := a.Add(context.Background(), r, 0); err != nil {
				t.Error(err)
			} else if _, err := a.Join(context.Background(), r, "news"); err != nil {
				t.Error(err)
			} else if err := a.Remove(context.Background(), r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	b.wantConnected("")
	b.wantConnected("news")
	// A user who leaves at once may never be announced. Users who were announced leave.
	eventually(t, "all to be told as gone", func() bool {
		there := make(map[string]int)
		for _, c := range b.told() {
			var who, what, where string
			fmt.Sscanf(c, "%s %s %s", &who, &what, &where)
			if what == "joined" {
				there[who+where]++
			} else {
				there[who+where]--
			}
		}
		for _, n := range there {
			if n != 0 {
				return false
			}
		}
		return len(there) > 0
	})
}

func TestShuttingDownHasEverybodyLeave(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	a.connect("ana", "news")
	if err := a.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wantConnected("")
	b.wantTold(`ana joined "" as user, 1 there`, `ana joined "news" as user, 1 there`,
		`ana left "news" as user, 0 there`, `ana left "" as user, 0 there`)
	c := s.Client()
	defer c.Close()
	if n, err := c.ZCard(t.Context(), "chat:{presence}:leases").Result(); err != nil || n != 1 {
		t.Errorf("%d nodes hold leases, %v; want the one left", n, err)
	}
	if _, err := a.Add(t.Context(), newReceiver("eve", chat.RoleUser), 0); err == nil {
		t.Error("connected to a registry that is shut down")
	}
}

const processLease = 3 * time.Second

// serveAsNode is a node in a process of its own, with two users.
func serveAsNode(addr string) {
	r, err := redisregistry.New(redis.NewClient(&redis.Options{Addr: addr}),
		redisregistry.WithLease(processLease), redisregistry.WithLogger(slog.New(slog.DiscardHandler)))
	if err == nil {
		_, err = r.Start(nil, nil)
	}
	ctx := context.Background()
	for err == nil && r.Check(ctx) != nil {
		<-time.After(10 * time.Millisecond)
	}
	for _, name := range []string{"ana", "bob"} {
		s := newReceiver(name, chat.RoleUser)
		_, connecting := r.Add(ctx, s, 0)
		_, joining := r.Join(ctx, s, "news")
		err = errors.Join(err, connecting, joining)
	}
	fmt.Println("ready", err)
	select {}
}

// startProcess starts another node as a process and waits until its users are there.
func startProcess(t *testing.T, s *redistest.Server) *os.Process {
	t.Helper()
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), "CHAT_TEST_NODE="+s.Addr)
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready <nil>" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return process.Process
}

func TestUsersOfAKilledNodeLeaveOnce(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	lease := redisregistry.WithLease(processLease)
	a, b := start(t, clientOf(s), lease), start(t, clientOf(s), lease)
	ana := a.connect("ana")

	process := startProcess(t, s)
	a.wantConnected("", "ana as user, 2", "bob as user, 1")
	a.wantConnected("news", "ana as user, 1", "bob as user, 1")
	// As long as it lives, they stay.
	<-time.After(processLease)
	a.wantConnected("", "ana as user, 2", "bob as user, 1")

	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	b.wantConnected("", "ana as user, 1")
	if took := time.Since(killed); took > processLease {
		t.Errorf("they left after %v, want within the lease of %v", took, processLease)
	}
	a.wantConnected("news")
	a.disconnect(ana)
	sorted := func(changes []string) string {
		joined := strings.Join(changes, "; ")
		for _, c := range []string{`ana left "news"`, `bob left "news"`, `bob left ""`, `ana left ""`} {
			if n := strings.Count(joined, c); n != 1 {
				t.Errorf("%s %d times", c, n)
			}
		}
		return joined
	}
	for _, n := range []*node{a, b} {
		eventually(t, "ana to leave", func() bool { return strings.Contains(strings.Join(n.told(), ";"), `ana left ""`) })
		if all := sorted(n.told()); strings.LastIndex(all, `ana left ""`) < strings.LastIndex(all, `bob left ""`) {
			t.Errorf("ana has left before her last socket went: %s", all)
		}
	}
}

// Leases go by Redis's clock. When that is put back, those of before seem to last.
func TestUsersOfAKilledNodeLeaveThoughTheClockWasPutBack(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := start(t, clientOf(s), redisregistry.WithLease(processLease))
	process := startProcess(t, s)
	a.wantConnected("", "ana as user, 1", "bob as user, 1")
	c := s.Client()
	defer c.Close()
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	nodes, err := c.ZRange(t.Context(), "chat:{presence}:leases", 0, -1).Result()
	if err != nil || len(nodes) != 2 {
		t.Fatalf("nodes with leases = %q, %v", nodes, err)
	}
	for _, node := range nodes {
		if err := c.ZIncrBy(t.Context(), "chat:{presence}:leases", float64(time.Hour/time.Millisecond), node).Err(); err != nil {
			t.Fatal(err)
		}
	}
	a.wantConnected("")
	a.connect("eve") // its own lease holds
	a.wantConnected("", "eve as user, 1")
}

// A process that was halted for longer than its lease finds out, and brings its
// users back.
func TestUsersOfAHaltedNodeComeBack(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := start(t, clientOf(s), redisregistry.WithLease(processLease))
	process := startProcess(t, s)
	a.wantConnected("news", "ana as user, 1", "bob as user, 1")
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	a.wantConnected("")
	a.wantConnected("news")
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	a.wantConnected("", "ana as user, 1", "bob as user, 1")
	a.wantConnected("news", "ana as user, 1", "bob as user, 1")
	eventually(t, "all to be told", func() bool { return len(a.told()) >= 12 })
	count := make(map[string]int)
	for _, c := range a.told() {
		count[strings.SplitAfter(c, " as ")[0]]++
	}
	want := make(map[string]int)
	for _, name := range []string{"ana", "bob"} {
		for _, channel := range []string{"", "news"} {
			want[fmt.Sprintf("%s joined %q as ", name, channel)] = 2
			want[fmt.Sprintf("%s left %q as ", name, channel)] = 1
		}
	}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("joins and leaves (-want +got):\n%s", diff)
	}
}

// After an outage all leases have run out. That is no reason to leave.
func TestNobodyLeavesForAnOutageLongerThanTheLease(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	lease := redisregistry.WithLease(2 * time.Second)
	a, b := start(t, clientOf(s), lease), start(t, clientOf(s), lease)
	a.connect("ana", "news")
	b.connect("bob", "news")
	s.Stop()
	a.awaitHealth(false)
	b.awaitHealth(false)
	<-time.After(2 * time.Second)
	s.Continue()
	a.awaitHealth(true)
	b.awaitHealth(true)
	<-time.After(4 * time.Second) // all would be found dead by now
	for _, n := range []*node{a, b} {
		n.wantConnected("news", "ana as user, 1", "bob as user, 1")
		n.wantTold(`ana joined "" as user, 1 there`, `ana joined "news" as user, 1 there`,
			`bob joined "" as user, 2 there`, `bob joined "news" as user, 2 there`)
	}
}

// All leases run out at once when Redis's clock is put forward, or when it was full
// and took no more reports. That is no reason to leave either.
func TestNobodyLeavesWhenAllLeasesRunOut(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	lease := redisregistry.WithLease(processLease)
	nodes := []*node{start(t, clientOf(s), lease), start(t, clientOf(s), lease), start(t, clientOf(s), lease)}
	for i, n := range nodes {
		n.connect(fmt.Sprint("user", i))
	}
	c := s.Client()
	defer c.Close()
	<-time.After(processLease) // they may find others dead by now
	var told []string
	for range 5 {
		for _, node := range c.ZRange(t.Context(), "chat:{presence}:leases", 0, -1).Val() {
			if err := c.ZAdd(t.Context(), "chat:{presence}:leases", redis.Z{Score: 1, Member: node}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(processLease / 3)
	}
	nodes[0].wantConnected("", "user0 as user, 1", "user1 as user, 1", "user2 as user, 1")
	for _, n := range nodes {
		for _, c := range n.told() {
			if strings.Contains(c, " left ") {
				told = append(told, c)
			}
		}
	}
	if len(told) > 0 {
		t.Errorf("told %q", told)
	}
}

// A report that Redis took, and whose answer was lost, is told again.
func TestComingsAndGoingsAreToldOnceThoughAnswersAreLost(t *testing.T) {
	for _, retries := range []int{-1, 3} { // by the client, beside the registry's own
		t.Run(fmt.Sprint(retries, " retries"), func(t *testing.T) {
			s := redistest.Start(t)
			watch := start(t, clientOf(s))
			var armed atomic.Int32
			n := start(t, losing(s, &armed, "\r\nreport\r\n", retries))
			lose := func() { armed.Store(1) }
			lost := func() {
				t.Helper()
				eventually(t, "an answer to be lost", func() bool { return armed.Load() <= 0 })
			}
			lose()
			ana := newReceiver("ana", chat.RoleUser)
			if _, err := n.Add(t.Context(), ana, 0); err != nil {
				t.Fatal(err)
			}
			lost()
			watch.wantTold(`ana joined "" as user, 1 there`)
			lose()
			n.disconnect(ana)
			lost()
			watch.wantTold(`ana joined "" as user, 1 there`, `ana left "" as user, 0 there`)
			bob := n.connect("bob")
			lose()
			n.disconnect(bob)
			lost()
			again := n.connect("bob") // before it is told again that bob left
			watch.wantConnected("", "bob as user, 1")
			lose()
			n.disconnect(again)
			lost()
			n.connect("end")
			watch.wantConnected("", "end as user, 1")
			eventually(t, "the end", func() bool {
				return len(watch.told()) > 0 && strings.HasPrefix(watch.told()[len(watch.told())-1], "end")
			})
			var told []string
			for _, c := range watch.told()[2:] {
				told = append(told, strings.SplitAfter(c, `"`)[0])
			}
			if diff := cmp.Diff([]string{`bob joined "`, `bob left "`, `bob joined "`, `bob left "`, `end joined "`}, told); diff != "" {
				t.Errorf("joins and leaves (-want +got):\n%s", diff)
			}
		})
	}
}
