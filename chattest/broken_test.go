package chattest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
)

// TestBroken runs each test of the suites on an implementation that breaks the promise
// which the test checks. Each runs in a process of its own and must fail.
func TestBroken(t *testing.T) {
	const variable = "CHATTEST_BROKEN"
	if name, child := os.LookupEnv(variable); child {
		chattest.SetPatience(3 * time.Second)
		for _, b := range broken {
			if b.name == name {
				b.run(t)
				return
			}
		}
		t.Fatalf("there is no broken implementation %q", name)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Run all at once: most of them only wait until a timeout.
	outcomes := make([]chan outcome, len(broken))
	for i, b := range broken {
		outcomes[i] = make(chan outcome, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			pattern := "^TestBroken$"
			if b.caughtBy != "" {
				pattern += "/^" + b.caughtBy + "$"
			}
			cmd := exec.CommandContext(ctx, program, "-test.run="+pattern, "-test.v", "-test.timeout=90s")
			cmd.Env = append(os.Environ(), variable+"="+b.name)
			out, err := cmd.CombinedOutput()
			outcomes[i] <- outcome{string(out), err}
		}()
	}
	for i, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			got := <-outcomes[i]
			fail := "--- FAIL: TestBroken"
			if b.caughtBy != "" {
				fail += "/" + b.caughtBy
			}
			var exit *exec.ExitError
			if !errors.As(got.err, &exit) || !strings.Contains(got.out, fail+" ") {
				t.Errorf("the suite did not fail: %v\n%s", got.err, got.out)
			}
			for _, wrong := range []string{"panic:", "DATA RACE"} {
				if strings.Contains(got.out, wrong) {
					t.Errorf("failed for another reason:\n%s", got.out)
				}
			}
		})
	}
}

// outcome is the output and the result of a process.
type outcome struct {
	out string
	err error
}

// broken lists implementations that break one promise each, and the test that must fail.
var broken = []struct {
	name     string
	caughtBy string // "" for TestRetention, TestRetentionByAge and TestDelivery, which have no subtests
	run      func(*testing.T)
}{
	{"no-order", "DeliversInOrderOfPositions", registry(func(*memory) chat.Registry { return newNaive(true) })},
	{"no-history", "ReadsMissingMessagesFromTheHistory", registry(func(m *memory) chat.Registry { return &ignoresHistory{m} })},
	{"repeats", "DeliversOnceWhatIsBroadcastAgain", registry(func(*memory) chat.Registry { return newNaive(false) })},
	{"to-everyone", "DeliversToTheMembersOfTheChannel", registry(func(m *memory) chat.Registry { return &joinsAll{m} })},
	{"join-too-far", "JoinMissesNothing", registry(func(m *memory) chat.Registry { return &joinsBefore{m} })},
	{"join-too-far-again", "JoinAgainSaysWhatWasDelivered", registry(func(m *memory) chat.Registry { return &saysMore{m} })},
	{"join-before-again", "JoinAgainSaysWhatWasDelivered", registry(func(m *memory) chat.Registry { return &joinsBefore{m} })},
	{"join-from-the-history", "JoinWhereSomethingIsStoredAndNotHandedOn", registry(func(m *memory) chat.Registry { return &saysLast{memory: m} })},
	{"join-loses-what-comes-meanwhile", "JoinWhileTheHistoryIsSlow", registry(func(m *memory) chat.Registry { return &readsThenJoins{memory: m} })},
	{"join-forever", "JoinRespectsTheContext", registry(func(m *memory) chat.Registry { return &ignoresContext{m} })},
	{"own-channel-unnoticed", "OnesOwnChannel", registry(func(m *memory) chat.Registry { return &noOwn{m} })},
	{"stays", "LeaveEndsDelivery", registry(func(m *memory) chat.Registry { return &neverLeaves{m} })},
	{"stays-connected", "RemoveEndsDelivery", registry(func(m *memory) chat.Registry { return &neverRemoves{m} })},
	{"ended-context-joins", "ContextsThatAreOver", registry(func(m *memory) chat.Registry { return &leaksWhenOver{m} })},
	{"counts-one", "AddCountsTheUsersSockets", registry(func(m *memory) chat.Registry { return &countsOne{m} })},
	{"unsorted", "ConnectedListsTheUsers", registry(func(m *memory) chat.Registry { return &unsorted{m} })},
	{"hides-users", "ConnectedListsTheUserInAUserChannel", registry(func(m *memory) chat.Registry { return &hidesUsers{m} })},
	{"compares-sockets", "SocketsAreKnownByTheirID", registry(func(m *memory) chat.Registry { return &comparesSockets{m, make(map[any]string)} })},
	{"takes-one", "PublishTakesSeveralMessages", registry(func(m *memory) chat.Registry { return &takesOne{m} })},
	{"closes-all", "CloseUserClosesTheOldest", registry(func(m *memory) chat.Registry { return &closesAll{m} })},
	{"presence-of-sockets", "PresenceOfEachUserInOrder", registry(func(m *memory) chat.Registry { return &tellsTwice{memory: m} })},
	{"presence-without-sizes", "PresenceCarriesTheSizeAtTheJoin", registry(func(m *memory) chat.Registry { return &forgetsSizes{m} })},
	{"role-of-any-socket", "TheRoleIsThatOfTheNewestSocketThere", registry(func(m *memory) chat.Registry { return &roleOfAny{m} })},
	{"presence-without-order", "PresenceBalancesUnderConcurrency", registry(func(m *memory) chat.Registry { return &tellsLate{memory: m} })},
	{"notifies-all", "AnnounceReachesItsAudience", registry(func(m *memory) chat.Registry { return &notifiesAll{m} })},
	{"flushes-nothing", "FlushWaitsForDelivery", registry(func(m *memory) chat.Registry { return &flushesNothing{m} })},

	{"position-twice", "PositionsCountUpByOne", history(func(h chat.History) chat.History { return &positionTwice{h} })},
	{"hole", "PositionsAreContiguousUnderConcurrency", history(func(h chat.History) chat.History { return &hides{h, 100} })},
	{"stored-twice", "PositionsAreContiguousWhenCallersGiveUp", history(func(h chat.History) chat.History { return &storesTwice{h} })},
	{"last-first", "SeveralAreStoredInOneCall", history(func(h chat.History) chat.History { return &lastFirst{h} })},
	{"only-the-first", "SeveralAreStoredInOneCall", history(func(h chat.History) chat.History { return &onlyFirst{h} })},
	{"one-position", "SeveralAreStoredInOneCall", history(func(h chat.History) chat.History { return &onePosition{h} })},
	{"in-place", "SeveralAreStoredInOneCall", history(func(h chat.History) chat.History { return &inPlace{h} })},
	{"needs-a-message", "NoMessagesAreNoError", history(func(h chat.History) chat.History { return &needsOne{h} })},
	{"several-last-first", "SeveralAreContiguousUnderConcurrency", history(func(h chat.History) chat.History { return &lastFirst{h} })},
	{"half-twice", "SeveralAreContiguousWhenCallersGiveUp", history(func(h chat.History) chat.History { return &retriesInHalves{h} })},
	{"one-too-many", "AfterReadsBack", history(func(h chat.History) chat.History { return &oneMore{h} })},
	{"any-bytes", "AfterEndsWhereTheBytesDo", history(func(h chat.History) chat.History { return &anyBytes{h} })},
	{"nothing-over-the-bytes", "AfterEndsWhereTheBytesDo", history(func(h chat.History) chat.History { return &neverOver{h} })},
	{"nothing-is-gone", "AfterOfWhatIsUnknownIsGone", history(func(h chat.History) chat.History { return &neverGone{h} })},
	{"empty-without-epoch", "LastOfAnEmptyChannel", history(func(h chat.History) chat.History { return &noEpoch{h} })},
	{"shortens", "MessagesComeBackAsTheyWere", history(func(h chat.History) chat.History { return &shortens{h} })},
	{"one-case", "ChannelsAreSeparate", history(func(h chat.History) chat.History { return &oneCase{h} })},
	{"hangs", "ContextsThatAreOver", history(func(h chat.History) chat.History { return &hangs{h} })},
	{"gone-with-nothing", "AfterOfWhatIsUnknownIsGone", history(func(h chat.History) chat.History { return &goneWithNothing{h} })},
	{"begins-again-at-a-hole", "AfterGoesOnBehindAHole", holes(func(h chat.History) chat.History { return &beginsAgain{h} })},
	{"hole-ends-the-paging", "PagesSkipHolesAndSaySo", holes(func(h chat.History) chat.History { return &goneWithNothing{h} })},
	{"hole-not-noticed", "ResumingOverAHoleIsALoss", holes(func(h chat.History) chat.History { return &skips{h} })},
	{"keeps-old-ones", "", retentionByAge(func(age time.Duration) chat.History {
		return chat.NewMemoryHistory(chat.MemoryLimits{Age: age + age/4})
	})},
	{"keeps-too-short", "", retentionByAge(func(age time.Duration) chat.History {
		return chat.NewMemoryHistory(chat.MemoryLimits{Age: age / 2})
	})},
	{"age-by-a-nodes-clock", "", retentionByAge(func(age time.Duration) chat.History {
		return &trustsTimes{chat.NewMemoryHistory(chat.MemoryLimits{Age: time.Hour}), age}
	})},
	{"keeps-all", "", retention(func(int) chat.History { return memoryHistory() })},
	{"keeps-nothing", "", retention(func(n int) chat.History { return chat.NewMemoryHistory(chat.MemoryLimits{Count: n / 2}) })},
	{"hole-after-trimming", "", retention(func(n int) chat.History {
		return &neverGone{chat.NewMemoryHistory(chat.MemoryLimits{Count: n})}
	})},

	{"delivery-without-order", "", delivery(func(*memory) chat.Registry { return newNaive(true) })},
	{"delivery-stays", "", delivery(func(m *memory) chat.Registry { return &neverLeaves{m} })},
	{"delivery-join-too-far-again", "", delivery(func(m *memory) chat.Registry { return &saysMore{m} })},
	{"delivery-join-before", "", delivery(func(m *memory) chat.Registry { return &joinsBefore{m} })},
	{"delivery-loses", "", delivery(func(m *memory) chat.Registry { return &loses{m} })},
	{"delivery-flushes-nothing", "", delivery(func(m *memory) chat.Registry { return &flushesNothing{m} })},
}

func registry(breaks func(*memory) chat.Registry) func(*testing.T) {
	return func(t *testing.T) {
		chattest.TestRegistry(t, func(*testing.T) []chattest.Node {
			r := breaks(chat.NewMemoryRegistry())
			return []chattest.Node{{Registry: r, History: memoryHistory()}}
		})
	}
}

func history(breaks func(chat.History) chat.History) func(*testing.T) {
	return func(t *testing.T) {
		chattest.TestHistory(t, func(*testing.T) []chat.History { return []chat.History{breaks(memoryHistory())} })
	}
}

func retention(open func(count int) chat.History) func(*testing.T) {
	return func(t *testing.T) {
		chattest.TestRetention(t, func(_ *testing.T, count int) []chat.History { return []chat.History{open(count)} })
	}
}

func retentionByAge(open func(age time.Duration) chat.History) func(*testing.T) {
	return func(t *testing.T) {
		chattest.TestRetentionByAge(t, func(_ *testing.T, age time.Duration) []chat.History { return []chat.History{open(age)} })
	}
}

func holes(breaks func(chat.History) chat.History) func(*testing.T) {
	return func(t *testing.T) {
		chattest.TestHoles(t, func(*testing.T) (chat.History, func(string, uint64)) {
			s := newSparse()
			return breaks(s), s.remove
		})
	}
}

func delivery(breaks func(*memory) chat.Registry) func(*testing.T) {
	return func(t *testing.T) {
		for seed := range uint64(20) {
			chattest.TestDelivery(t, seed, func(*testing.T) []chattest.Node {
				return []chattest.Node{{Registry: breaks(chat.NewMemoryRegistry()), History: memoryHistory()}}
			})
			if t.Failed() {
				return
			}
		}
	}
}

// memory is a short name for the registry that most broken registries embed.
type memory = chat.MemoryRegistry

// naive delivers each message as soon as it is published. With swapping it delivers each
// second message before the first.
type naive struct {
	*memory
	swapping bool
	history  chat.History // set before use

	mu      sync.Mutex // guards the fields below; held while delivering
	members map[string][]chat.Socket
	held    map[string]*chat.Message
}

func newNaive(swapping bool) *naive {
	return &naive{memory: chat.NewMemoryRegistry(), swapping: swapping, members: make(map[string][]chat.Socket), held: make(map[string]*chat.Message)}
}

func (n *naive) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	n.history = h
	return n.memory.Start(h, changed)
}

func (*naive) Add(context.Context, chat.Socket, int) (int, error) { return 1, nil }
func (*naive) Remove(context.Context, chat.Socket) error          { return nil }

func (n *naive) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members[channel] = append(n.members[channel], s)
	return n.history.Last(ctx, channel)
}

func (n *naive) Leave(context.Context, chat.Socket, string) error { return nil }

func (n *naive) Publish(_ context.Context, msgs ...chat.Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range msgs {
		n.publish(m)
	}
	return nil
}

// publish requires n.mu.
func (n *naive) publish(m chat.Message) {
	held := n.held[m.Channel]
	if n.swapping && held == nil {
		n.held[m.Channel] = &m
		return
	}
	n.held[m.Channel] = nil
	for _, s := range n.members[m.Channel] {
		s.Deliver(chat.Event{Type: chat.EventMessage, Message: m})
		if held != nil {
			s.Deliver(chat.Event{Type: chat.EventMessage, Message: *held})
		}
	}
}

func (*naive) Connected(context.Context, string) ([]chat.Presence, error) { return nil, nil }

func (*naive) CloseUser(context.Context, string, int, chat.CloseCode, string) (int, error) {
	return 0, nil
}

type ignoresHistory struct{ *memory }

func (r *ignoresHistory) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	_, err := r.memory.Start(nil, changed)
	return h, err
}

type joinsAll struct{ *memory }

func (r *joinsAll) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	n, err := r.memory.Add(ctx, s, limit)
	_, _ = r.Join(ctx, s, "b")
	return n, err
}

// joinsBefore returns the position before the right one from Join.
type joinsBefore struct{ *memory }

func (r *joinsBefore) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	p, err := r.memory.Join(ctx, s, channel)
	p.Seq -= min(p.Seq, 1)
	return p, err
}

// saysMore returns a position from Join that no message has yet.
type saysMore struct{ *memory }

func (r *saysMore) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	p, err := r.memory.Join(ctx, s, channel)
	if p.Seq > 0 {
		p.Seq++
	}
	return p, err
}

// saysLast returns the history's last position, although its message may not be published.
type saysLast struct {
	*memory
	history chat.History
}

func (r *saysLast) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	r.history = h
	return r.memory.Start(h, changed)
}

func (r *saysLast) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	if _, err := r.memory.Join(ctx, s, channel); err != nil {
		return chat.Position{}, err
	}
	return r.history.Last(ctx, channel)
}

// readsThenJoins reads the position first and adds the member later.
type readsThenJoins struct {
	*memory
	history chat.History
}

func (r *readsThenJoins) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	r.history = h
	return r.memory.Start(h, changed)
}

func (r *readsThenJoins) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	p, err := r.history.Last(ctx, channel)
	if err != nil {
		return p, err
	}
	_, err = r.memory.Join(ctx, s, channel)
	return p, err
}

type ignoresContext struct{ *memory }

func (r *ignoresContext) Join(_ context.Context, s chat.Socket, channel string) (chat.Position, error) {
	return r.memory.Join(context.Background(), s, channel)
}

type noOwn struct{ *memory }

func (r *noOwn) Publish(ctx context.Context, msgs ...chat.Message) error {
	return r.memory.Publish(ctx, slices.DeleteFunc(slices.Clone(msgs), func(m chat.Message) bool {
		who, err := r.Connected(ctx, "")
		return err == nil && strings.HasPrefix(m.Channel, "@") && m.Position.Seq == 1 && len(who) > 0
	})...)
}

type neverLeaves struct{ *memory }

func (*neverLeaves) Leave(context.Context, chat.Socket, string) error { return nil }

type neverRemoves struct{ *memory }

func (*neverRemoves) Remove(context.Context, chat.Socket) error { return nil }

// leaksWhenOver returns an error from Add if the context has ended, and keeps the socket.
type leaksWhenOver struct{ *memory }

func (r *leaksWhenOver) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	n, err := r.memory.Add(ctx, s, limit)
	return n, errors.Join(err, ctx.Err())
}

type countsOne struct{ *memory }

func (r *countsOne) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	_, err := r.memory.Add(ctx, s, limit)
	return 1, err
}

type unsorted struct{ *memory }

func (r *unsorted) Connected(ctx context.Context, channel string) ([]chat.Presence, error) {
	list, err := r.memory.Connected(ctx, channel)
	slices.Reverse(list)
	return list, err
}

type closesAll struct{ *memory }

func (r *closesAll) CloseUser(ctx context.Context, username string, _ int, code chat.CloseCode, reason string) (int, error) {
	return r.memory.CloseUser(ctx, username, 0, code, reason)
}

// tellsTwice reports each socket that joins, not only a user's first.
type tellsTwice struct {
	*memory
	changed func(chat.PresenceChange)
}

func (r *tellsTwice) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	r.changed = changed
	return r.memory.Start(h, changed)
}

func (r *tellsTwice) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	n, err := r.memory.Add(ctx, s, limit)
	if n > 1 {
		r.changed(chat.PresenceChange{User: s.User(), Joined: true, Size: n})
	}
	return n, err
}

// forgetsSizes reports the size at the leave as JoinSize.
type forgetsSizes struct{ *memory }

func (r *forgetsSizes) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	return r.memory.Start(h, func(c chat.PresenceChange) {
		c.JoinSize = c.Size
		changed(c)
	})
}

// roleOfAny lists the users of a channel with the roles that they have in everyone's channel.
type roleOfAny struct{ *memory }

func (r *roleOfAny) Connected(ctx context.Context, channel string) ([]chat.Presence, error) {
	all, err := r.memory.Connected(ctx, "")
	list, err2 := r.memory.Connected(ctx, channel)
	for i := range list {
		for _, p := range all {
			if p.User.Name == list[i].User.Name {
				list[i].User = p.User
			}
		}
	}
	return list, errors.Join(err, err2)
}

// tellsLate delays each second change until the next one, so that their order is wrong.
type tellsLate struct {
	*memory
	mu    sync.Mutex // guards the fields below
	held  *chat.PresenceChange
	calls int
}

func (r *tellsLate) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	return r.memory.Start(h, func(c chat.PresenceChange) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls++
		if r.held == nil && r.calls%2 > 0 {
			r.held = &c
			return
		}
		changed(c)
		if r.held != nil {
			changed(*r.held)
			r.held = nil
		}
	})
}

type notifiesAll struct{ *memory }

func (r *notifiesAll) Announce(channel string, _ bool, events []chat.Event) {
	r.memory.Announce(channel, false, events)
}

type flushesNothing struct{ *memory }

func (r *flushesNothing) Flush(context.Context) error { return nil }

// loses drops a message that it acknowledges. Nothing is missing until the next message
// comes.
type loses struct{ *memory }

func (r *loses) Publish(ctx context.Context, msgs ...chat.Message) error {
	return r.memory.Publish(ctx, slices.DeleteFunc(slices.Clone(msgs), func(m chat.Message) bool {
		return m.Channel == "" && m.Position.Seq >= 100
	})...)
}

// takesOne publishes only the first message of a call.
type takesOne struct{ *memory }

func (r *takesOne) Publish(ctx context.Context, msgs ...chat.Message) error {
	return r.memory.Publish(ctx, msgs[:1]...)
}

// hidesUsers does not list the user in a user channel.
type hidesUsers struct{ *memory }

func (r *hidesUsers) Connected(ctx context.Context, channel string) ([]chat.Presence, error) {
	if strings.HasPrefix(channel, "@") {
		return nil, nil
	}
	return r.memory.Connected(ctx, channel)
}

// comparesSockets identifies sockets by the interface value, so each wrapper is another socket.
type comparesSockets struct {
	*memory
	ids map[any]string
}

func (r *comparesSockets) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	return r.memory.Join(ctx, renamed{s, r.id(s)}, channel)
}

func (r *comparesSockets) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	return r.memory.Add(ctx, renamed{s, r.id(s)}, limit)
}

func (r *comparesSockets) id(s chat.Socket) string {
	if !reflect.TypeOf(s).Comparable() {
		return s.ID()
	}
	if r.ids[s] == "" {
		r.ids[s] = rand.Text()
	}
	return r.ids[s]
}

// renamed is a socket with another id.
type renamed struct {
	chat.Socket
	id string
}

func (r renamed) ID() string { return r.id }

// positionTwice gives the fourth message the position of the third.
type positionTwice struct{ chat.History }

func (h *positionTwice) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	stored, err := h.History.Append(ctx, msgs...)
	for i := range stored {
		if stored[i].Position.Seq == 4 {
			stored[i].Position.Seq--
		}
	}
	return stored, err
}

// hides leaves out the message at one position.
type hides struct {
	chat.History
	seq uint64
}

func (h *hides) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	msgs, err := h.History.After(ctx, channel, p, limit)
	return slices.DeleteFunc(msgs, func(m chat.Message) bool { return m.Position.Seq == h.seq }), err
}

// storesTwice stores the messages of a call again if its context has a deadline.
type storesTwice struct{ chat.History }

func (h *storesTwice) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	stored, err := h.History.Append(ctx, msgs...)
	if _, bounded := ctx.Deadline(); bounded {
		return h.History.Append(ctx, msgs...)
	}
	return stored, err
}

type oneMore struct{ chat.History }

func (h *oneMore) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	limit.Count++
	return h.History.After(ctx, channel, p, limit)
}

// anyBytes ignores the limit of bytes.
type anyBytes struct{ chat.History }

func (h *anyBytes) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	return h.History.After(ctx, channel, p, chat.Limit{Count: limit.Count})
}

// neverOver leaves out the message that reaches the limit of bytes, even the first.
type neverOver struct{ chat.History }

func (h *neverOver) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	msgs, err := h.History.After(ctx, channel, p, limit)
	bytes := 0
	for i, m := range msgs {
		if bytes += len(m.Content); limit.Bytes > 0 && bytes > limit.Bytes {
			return msgs[:i], err
		}
	}
	return msgs, err
}

// neverGone returns the oldest messages without ErrGone when the next one is missing.
type neverGone struct{ chat.History }

func (h *neverGone) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	msgs, err := h.History.After(ctx, channel, p, limit)
	if errors.Is(err, chat.ErrGone) {
		return h.History.After(ctx, channel, chat.Position{}, limit)
	}
	return msgs, err
}

// goneWithNothing returns ErrGone without the messages after the hole.
type goneWithNothing struct{ chat.History }

func (h *goneWithNothing) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	msgs, err := h.History.After(ctx, channel, p, limit)
	if err != nil {
		return nil, err
	}
	return msgs, nil
}

// beginsAgain returns the oldest messages where it should return those after the hole.
type beginsAgain struct{ chat.History }

func (h *beginsAgain) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	msgs, err := h.History.After(ctx, channel, p, limit)
	if errors.Is(err, chat.ErrGone) {
		msgs, _ = h.History.After(ctx, channel, chat.Position{}, limit)
	}
	return msgs, err
}

// skips returns the messages after a hole without ErrGone.
type skips struct{ chat.History }

func (h *skips) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	msgs, err := h.History.After(ctx, channel, p, limit)
	if len(msgs) > 0 {
		err = nil
	}
	return msgs, err
}

// trustsTimes deletes messages by the time that they carry.
type trustsTimes struct {
	chat.History
	age time.Duration
}

func (h *trustsTimes) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	msgs, err := h.History.After(ctx, channel, p, limit)
	return slices.DeleteFunc(msgs, func(m chat.Message) bool { return time.Since(m.Time) > h.age }), err
}

type noEpoch struct{ chat.History }

func (h *noEpoch) Last(ctx context.Context, channel string) (chat.Position, error) {
	p, err := h.History.Last(ctx, channel)
	if p.Seq == 0 {
		p.Epoch = ""
	}
	return p, err
}

type shortens struct{ chat.History }

func (h *shortens) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	short := slices.Clone(msgs)
	for i, m := range msgs {
		short[i].Content = m.Content[:min(len(m.Content), 32<<10-1)]
	}
	stored, err := h.History.Append(ctx, short...)
	for i := range stored {
		stored[i].Content = msgs[i].Content
	}
	return stored, err
}

type oneCase struct{ chat.History }

func (h *oneCase) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	lower := slices.Clone(msgs)
	for i, m := range msgs {
		lower[i].Channel = strings.ToLower(m.Channel)
	}
	stored, err := h.History.Append(ctx, lower...)
	for i := range stored {
		stored[i].Channel = msgs[i].Channel
	}
	return stored, err
}

// hangs ignores the context: it returns when it has the result.
type hangs struct{ chat.History }

func (h *hangs) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	if ctx.Err() != nil {
		select {}
	}
	return h.History.Append(ctx, msgs...)
}

// lastFirst stores the messages of a call in the wrong order.
type lastFirst struct{ chat.History }

func (h *lastFirst) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	turned := slices.Clone(msgs)
	slices.Reverse(turned)
	stored, err := h.History.Append(ctx, turned...)
	slices.Reverse(stored)
	return stored, err
}

// onlyFirst stores the first message of a call and returns all.
type onlyFirst struct{ chat.History }

func (h *onlyFirst) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	stored, err := h.History.Append(ctx, msgs[:min(len(msgs), 1)]...)
	return append(stored, msgs[min(len(msgs), 1):]...), err
}

// onePosition returns the last position for all messages that a call stores in a channel.
type onePosition struct{ chat.History }

func (h *onePosition) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	stored, err := h.History.Append(ctx, msgs...)
	last := make(map[string]chat.Position)
	for _, m := range stored {
		last[m.Channel] = m.Position
	}
	for i, m := range stored {
		stored[i].Position = last[m.Channel]
	}
	return stored, err
}

// inPlace writes the positions into its caller's messages.
type inPlace struct{ chat.History }

func (h *inPlace) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	stored, err := h.History.Append(ctx, msgs...)
	copy(msgs, stored)
	return stored, err
}

// needsOne returns an error for a call without messages.
type needsOne struct{ chat.History }

func (h *needsOne) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	if len(msgs) == 0 {
		return nil, errors.New("no messages")
	}
	return h.History.Append(ctx, msgs...)
}

// retriesInHalves stores half of the messages of a call whose context has a deadline, then
// retries with all of them.
type retriesInHalves struct{ chat.History }

func (h *retriesInHalves) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	if _, bounded := ctx.Deadline(); bounded {
		_, _ = h.History.Append(ctx, msgs[:len(msgs)/2]...)
	}
	return h.History.Append(ctx, msgs...)
}
