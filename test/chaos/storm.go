package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat"
)

// StormRate is the usual number of messages per second in a storm. Clients miss about that
// many, because the channels are large.
const StormRate = 10

const (
	// stormWithin is the time in which all clients of a dead node must have reconnected and
	// received the messages they missed.
	stormWithin = 10 * time.Second
	// stormPatience is when a storm that does not end is stopped.
	stormPatience = 3 * time.Minute
	// stormSpread is the time over which the clients dial.
	stormSpread = time.Second
	// stormMissed is the number of messages in everyone's channel that all clients miss.
	stormMissed = 5
	// commonOneIn is the number of messages in other channels per message in everyone's channel.
	commonOneIn = 50
	// stormMembers is about the number of clients in a channel: so many that joins and leaves go
	// to admins only. Otherwise the storm would measure mostly those.
	stormMembers = 2 * 100 // twice the default of chat.WithPresenceLimit
)

// Storm moves all clients of a node to another: they connect to the first node within a
// second, the first node is killed, and all resume at the second one within a second, while
// publishing continues. With a registry in memory there is one node, which is restarted. The
// verdict fails if a client is closed, loses or repeats a message, or has not resumed within
// 10 s. Config.Seed, Faults and Length have no effect.
func Storm(ctx context.Context, config Config, out io.Writer) (v Verdict, err error) {
	config.Nodes, config.Length = 2, stormPatience
	config.fsync = "everysec" // Redis is not killed; how fast the disk is does not matter
	if config.Registry == Memory {
		config.Nodes = 1
	}
	config.Forgetful = config.Forgetful || config.History == Memory
	return runWith(ctx, config, out, func(c *cluster) error {
		s := newStorm(c)
		c.report.say("a storm of %d clients, registry %s, history %s", config.Clients, config.Registry, config.History)
		return s.run(ctx)
	})
}

// storm is one run of [Storm].
type storm struct {
	cluster *cluster
	clients []*returner
	running sync.WaitGroup

	again   chan struct{} // closed when the clients are to come back
	to      *node         // they come back to this one; set before again is closed
	targets map[string]chat.Position
	began   time.Time // when they were told to reconnect
}

// returner is a client of a storm. It connects when it is told to, and reconnects whenever
// its socket ends.
type returner struct {
	*client
	storm *storm
	token string

	welcomed atomic.Bool
	resumed  atomic.Int64 // how long that took from storm.began, ns; 0: not yet
}

func newStorm(c *cluster) *storm {
	s := &storm{cluster: c, again: make(chan struct{})}
	groups := max(1, c.config.Clients*groupsEach/stormMembers)
	for i := range groups {
		c.groups = append(c.groups, fmt.Sprintf("group-%d", i+1))
	}
	for i := range c.config.Clients {
		name := fmt.Sprintf("user-%05d", i+1)
		c.users = append(c.users, name)
		r := &returner{storm: s, client: &client{
			cluster: c,
			report:  c.report,
			ledger:  c.ledger,
			user:    chat.User{Name: name, Role: chat.RoleUser},
			rng:     rand.New(rand.NewPCG(c.config.Seed, uint64(i))),
			cursors: make(map[string]*cursor),
		}}
		for j := range min(groupsEach, groups) {
			r.channels = append(r.channels, c.groups[(i+j*(groups/2+1))%groups])
		}
		s.clients = append(s.clients, r)
	}
	return s
}

// run goes through the phases of a storm.
func (s *storm) run(ctx context.Context) error {
	c := s.cluster
	first := c.nodes[0]
	s.to = c.nodes[len(c.nodes)-1]
	for _, r := range s.clients {
		r.token = c.tokens.token(r.user, c.expires)
	}
	staying, leave := context.WithCancel(ctx)
	defer s.running.Wait()
	defer leave()

	began := time.Now()
	for _, r := range s.clients {
		s.running.Go(func() { r.follow(staying, first) })
	}
	if wrong := until(ctx, stormPatience, s.notIn); wrong != "" {
		c.report.find(findLost, "new clients do not get in: %s", wrong)
		return ctx.Err()
	}
	c.report.say("%d new clients, within %v, were in after %v", len(s.clients), stormSpread, time.Since(began).Round(10*time.Millisecond))
	s.counted("while they came for the first time")

	publishing, silence := context.WithCancel(ctx)
	var publishers sync.WaitGroup
	defer publishers.Wait()
	defer silence()
	if err := s.say(ctx, s.to, stormMissed); err != nil { // a history to resume from
		return err
	}
	if wrong := until(ctx, replayWithin, func() string { return s.behind(false) }); wrong != "" {
		c.report.find(findLost, "before the storm %s", wrong)
	}

	if err := first.kill(); err != nil {
		return err
	}
	if first == s.to {
		if err := first.start(ctx); err != nil {
			return err
		}
	}
	if err := s.say(ctx, s.to, stormMissed); err != nil {
		return err
	}
	const posters = 4
	for i := range posters {
		p := &poster{storm: s, speech: &speech{
			name:    fmt.Sprintf("poster-%d", i+1),
			rng:     rand.New(rand.NewPCG(c.config.Seed, 1<<32+uint64(i))),
			cluster: c,
		}}
		publishers.Go(func() { p.post(publishing, posters*time.Second/time.Duration(c.config.Rate)) })
	}
	s.targets = c.ledger.acknowledged()
	s.began = time.Now()
	close(s.again)
	c.report.say("%s was killed, its clients come to %s within %v", first.name, s.to.name, stormSpread)
	if wrong := until(ctx, stormPatience, s.notBack); wrong != "" {
		c.report.find(findLost, "after %v %s", stormPatience, wrong)
		s.logged(s.to)
		return ctx.Err()
	}
	s.judge()
	pause(ctx, tail)
	silence()
	publishers.Wait()
	if wrong := until(ctx, replayWithin, func() string { return s.behind(true) }); wrong != "" {
		c.report.find(findLost, "when nothing was published any more %s", wrong)
	}
	s.present(ctx)
	leave()
	s.running.Wait()
	s.logged(s.to)
	if err := s.to.drainAway(); err != nil {
		c.report.find(findProcess, "%v", err)
	}
	published, acked, _ := c.ledger.numbers()
	c.report.add("messages published", published)
	c.report.add("messages acknowledged", acked)
	c.report.add("messages received", int(c.report.messages.Load()))
	return ctx.Err()
}

// say publishes messages in everyone's channel.
func (s *storm) say(ctx context.Context, n *node, messages int) error {
	c := s.cluster
	for range messages {
		content := fmt.Sprintf("to all, at %v", time.Since(c.report.began))
		c.ledger.publishing("", content)
		id, status, err := c.post(ctx, n, "", content)
		if err != nil || id == "" {
			return fmt.Errorf("publishing at %s: status %d: %w", n.name, status, errors.Join(err))
		}
		c.ledger.acked(content, id)
	}
	return nil
}

// poster publishes at the node to which the clients reconnect.
type poster struct {
	*speech
	storm *storm
}

func (p *poster) post(ctx context.Context, every time.Duration) {
	c := p.cluster
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		channel, content := p.next()
		if channel == "" { // it would be a tenth of all
			channel = c.groups[p.rng.IntN(len(c.groups))]
		}
		if p.count%commonOneIn == 0 {
			channel = ""
		}
		c.ledger.publishing(channel, content)
		asked := time.Now()
		id, status, err := c.post(context.WithoutCancel(ctx), p.storm.to, channel, content)
		c.report.published(time.Since(asked), err == nil && id != "")
		switch {
		case err == nil && id != "":
			c.ledger.acked(content, id)
		case err == nil:
			c.report.tally(fmt.Sprintf("publishes answered %d", status))
		default:
			c.report.tally("publishes that failed")
		}
	}
}

// follow connects to the first node within the spread, and to the second when the storm
// begins.
func (r *returner) follow(ctx context.Context, first *node) {
	r.stay(ctx, first, r.storm.again)
	select {
	case <-r.storm.again:
	case <-ctx.Done():
		return
	}
	r.stay(ctx, r.storm.to, nil)
}

// stay connects to a node, and again whenever that fails or the socket ends, until ctx ends
// or over is closed. It does not reconnect to a dead node.
func (r *returner) stay(ctx context.Context, n *node, over <-chan struct{}) {
	wait := time.Duration(r.rng.Int64N(int64(stormSpread)))
	backoff := firstPause
	process := n.process
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-over:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
		welcomed, later := r.socket(ctx, n, process)
		if ctx.Err() != nil {
			return
		}
		if over != nil && process.killed.Load() {
			return
		}
		if welcomed {
			backoff = firstPause
		}
		if wait = later; wait == 0 {
			wait = time.Duration(r.rng.Int64N(int64(backoff))) + backoff/4
			backoff = min(2*backoff, mostPause)
		}
	}
}

// socket runs one connection from its handshake to its end. It returns how long the server
// asked to wait before the next one, if it did.
func (r *returner) socket(ctx context.Context, n *node, process *process) (welcomed bool, later time.Duration) {
	conn, resumed, err := r.dialWith(ctx, n.address, r.token)
	if err != nil {
		if refused, ok := errors.AsType[*refusal](err); ok {
			r.report.tally(fmt.Sprintf("handshakes answered %d", refused.status))
			// Spread the retries of clients that were refused at the same time.
			return false, refused.after + time.Duration(r.rng.Int64N(int64(refused.after)/4+1))
		}
		if ctx.Err() == nil && !process.killed.Load() {
			r.report.tally("handshakes that failed: " + kindOf(err))
		}
		return false, 0
	}
	defer conn.Close()
	defer leaving(ctx, conn)()
	_ = conn.SetReadDeadline(time.Now().Add(welcomeWithin))
	if err = r.welcome(conn, resumed); err == nil {
		welcomed = true
		r.attach(conn, n)
		r.welcomed.Store(true)
		r.reached()
		err = r.readWith(ctx, conn, r.reached)
		r.attach(nil, nil)
	}
	if ctx.Err() == nil && !process.killed.Load() {
		code, reason := closeOf(err)
		r.report.tally(fmt.Sprintf("sockets that ended with %d", code))
		r.report.find(findClosed, "%s at %s, welcomed %t: %s", r.user.Name, n.name, welcomed, reason)
	}
	return welcomed, 0
}

// reached records when the client has all messages acknowledged before the storm.
func (r *returner) reached() {
	select {
	case <-r.storm.again:
	default:
		return
	}
	if r.resumed.Load() != 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for channel, at := range r.cursors {
		target := r.storm.targets[channel]
		if target != (chat.Position{}) && (at.at.Epoch != target.Epoch || at.at.Seq < target.Seq) {
			return
		}
	}
	r.resumed.Store(int64(time.Since(r.storm.began)))
}

func (s *storm) notIn() string {
	n := 0
	for _, r := range s.clients {
		if !r.welcomed.Load() {
			n++
		}
	}
	if n > 0 {
		return fmt.Sprintf("%d of %d clients are not in", n, len(s.clients))
	}
	return ""
}

func (s *storm) notBack() string {
	n := 0
	for _, r := range s.clients {
		if r.resumed.Load() == 0 {
			n++
		}
	}
	if n > 0 {
		return fmt.Sprintf("%d of %d clients are not back and resumed", n, len(s.clients))
	}
	return ""
}

func (s *storm) behind(any bool) string {
	f := &fleet{}
	for _, r := range s.clients {
		f.clients = append(f.clients, r.client)
	}
	wrong, _ := f.behind(any)
	return wrong
}

// judge reports how long the clients took to reconnect.
func (s *storm) judge() {
	var took []time.Duration
	for _, r := range s.clients {
		took = append(took, time.Duration(r.resumed.Load()))
	}
	all := spread(took)
	s.cluster.report.say("back and resumed: %v", all)
	s.cluster.report.add("milliseconds until the last client was back and resumed", int(all.Max.Milliseconds()))
	s.counted("until all were back")
	within := stormWithin
	if patient := s.cluster.config.patient; patient > 0 {
		within = patient
	}
	if all.Max > within {
		s.cluster.report.find(findLate, "the last client was back and resumed after %v, not within %v",
			all.Max.Round(time.Millisecond), within)
	}
}

// counted returns the handshakes and sockets that failed so far, as text.
func (s *storm) counted(when string) {
	for what, n := range s.cluster.report.tallied() {
		if strings.HasPrefix(what, "handshakes") || strings.HasPrefix(what, "sockets that ended") {
			s.cluster.report.say("%s: %d %s", when, n, what)
		}
	}
}

// present checks that the node lists exactly the connected users, once the lease of the
// other node has expired.
func (s *storm) present(ctx context.Context) {
	want := make(map[string]int, len(s.clients))
	for _, r := range s.clients {
		want[r.user.Name] = 1
	}
	wrong := until(ctx, s.cluster.config.Lease+slack, func() string {
		who, err := s.cluster.presence(ctx, s.to)
		if err != nil {
			return err.Error()
		}
		return difference(want, who)
	})
	if wrong != "" {
		s.cluster.report.find(findPresence, "%s says of who is connected: %s", s.to.name, wrong)
	}
}

// logged counts what a node wrote about the storm.
func (s *storm) logged(n *node) {
	lines, bytes := n.process.warnings()
	s.cluster.report.add("warnings in the log of "+n.name, lines)
	s.cluster.report.add("bytes of warnings in the log of "+n.name, bytes)
	const most = 100 << 10
	if bytes > most {
		s.cluster.report.find(findProcess, "%s wrote %d bytes of warnings, more than %d", n.name, bytes, most)
	}
}

// kindOf returns the text of an error without addresses, so that errors of a kind are equal.
func kindOf(err error) string {
	text := err.Error()
	return text[strings.LastIndex(text, ": ")+1:]
}

// refusal is an error answer to a handshake.
type refusal struct {
	status int
	after  time.Duration // the server asks to wait; 0: it does not
	err    error
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %v", r.status, r.err) }
func (r *refusal) Unwrap() error { return r.err }

// refusedBy returns the refusal in an answer.
func refusedBy(resp *http.Response, err error) *refusal {
	r := &refusal{status: resp.StatusCode, err: err}
	if after, bad := time.ParseDuration(resp.Header.Get("Retry-After") + "s"); bad == nil {
		r.after = after
	}
	return r
}
