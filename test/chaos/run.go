package chaos

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// tail is how long publishers continue after the last fault.
const tail = 2 * time.Second

// Run does a run and prints its progress. The error is about the run itself, if it could not
// be carried out or ctx ended. What the nodes did wrong is in the verdict.
func Run(ctx context.Context, config Config, out io.Writer) (v Verdict, err error) {
	return runWith(ctx, config, out, func(c *cluster) error {
		strikes := plan(config)
		c.report.say("seed %d, %d nodes, registry %s, history %s; the plan:\n%s",
			config.Seed, config.Nodes, config.Registry, config.History, describe(strikes))
		return c.run(ctx, strikes)
	})
}

// runWith starts a cluster, calls fn with it, and ends it.
func runWith(ctx context.Context, config Config, out io.Writer, fn func(*cluster) error) (v Verdict, err error) {
	if err := config.validate(); err != nil {
		return Verdict{}, err
	}
	r := newReport(out)
	c, err := newCluster(ctx, config, r)
	defer func() {
		keep := config.Keep || err != nil || !v.OK()
		if keep {
			v.Dir = c.dir
		}
		if bad := c.end(keep); err == nil {
			err = bad
		}
	}()
	if err != nil {
		return Verdict{}, err
	}
	if err := fn(c); err != nil {
		return Verdict{}, err
	}
	return r.verdict(), nil
}

// run goes through the phases of a run.
func (c *cluster) run(ctx context.Context, strikes []strike) error {
	for _, n := range c.nodes {
		if err := n.remember(ctx); err != nil {
			return err
		}
	}
	f := newFleet(c)
	watching, unwatch := context.WithCancel(ctx)
	staying, leave := context.WithCancel(ctx)
	defer f.ended.Wait()
	defer unwatch()
	defer leave()
	if !f.arrive(ctx, watching, staying) {
		return ctx.Err()
	}

	publishing, silence := context.WithCancel(ctx)
	defer silence()
	var publishers sync.WaitGroup
	defer publishers.Wait()
	f.publish(publishing, &publishers)
	c.turbulent.Store(true)
	err := c.breakThings(ctx, strikes, f)
	c.turbulent.Store(false)
	if err != nil {
		silence()
		return err
	}
	pause(ctx, tail)
	silence()
	publishers.Wait()
	c.report.say("nothing is broken any more, and nothing is published")
	f.settle(ctx)
	c.list(ctx)
	c.report.lost(f.account())

	pause(ctx, longestWindow) // a join and a leave within a window are not announced
	for _, o := range f.observers {
		o.reset()
	}
	leave()
	f.announcedOnce(ctx, false)
	unwatch()
	f.ended.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.present(ctx, map[string]int{}, c.config.Lease+slack)
	c.empty(ctx)
	c.drainAll(ctx)
	published, acked, stored := c.ledger.numbers()
	c.report.add("messages published", published)
	c.report.add("messages acknowledged", acked)
	c.report.add("messages stored but not acknowledged", stored)
	c.report.add("messages received", int(c.report.messages.Load()))
	return ctx.Err()
}

// publish publishes half of the messages over HTTP and half over sockets.
func (f *fleet) publish(ctx context.Context, running *sync.WaitGroup) {
	c := f.cluster
	posters := len(f.talkers)
	every := time.Duration(posters+len(f.talkers)) * time.Second / time.Duration(c.config.Rate)
	for i := range posters {
		s := &speech{
			name:    fmt.Sprintf("poster-%d", i+1),
			rng:     rand.New(rand.NewPCG(c.config.Seed, 100+uint64(i))),
			cluster: c,
		}
		running.Go(func() { postForever(ctx, s, every) })
	}
	for _, t := range f.talkers {
		running.Go(func() { t.talkForever(ctx, every) })
	}
}

// breakThings carries out the plan and returns when everything is mended.
func (c *cluster) breakThings(ctx context.Context, strikes []strike, f *fleet) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	var under sync.WaitGroup
	defer under.Wait()
	for _, s := range strikes {
		pause(ctx, time.Until(began.Add(s.at)))
		if ctx.Err() != nil {
			break
		}
		under.Go(func() {
			done, ok := c.reserve(ctx, s)
			defer done()
			if !ok || time.Since(began) > c.config.Length {
				return
			}
			if err := c.strike(ctx, s, f); err != nil {
				cancel(fmt.Errorf("%s: %w", s, err))
			}
		})
	}
	pause(ctx, time.Until(began.Add(c.config.Length)))
	under.Wait()
	return context.Cause(ctx)
}

// reserve waits until no other strike of the same thing is under way: one may have taken
// longer than planned to begin or to mend. It reports false if ctx ends.
func (c *cluster) reserve(ctx context.Context, s strike) (done func(), ok bool) {
	what, _ := faultNamed(s.fault)
	var held []chan struct{}
	done = func() {
		for _, token := range held {
			<-token
		}
	}
	abouts := []string{what.about, what.also}
	slices.Sort(abouts) // all in one order
	for _, about := range abouts {
		if about == "" {
			continue
		}
		token, _ := c.underWay.LoadOrStore(about, make(chan struct{}, 1))
		select {
		case token.(chan struct{}) <- struct{}{}:
			held = append(held, token.(chan struct{}))
		case <-ctx.Done():
			return done, false
		}
	}
	return done, true
}

// strike carries out one fault.
func (c *cluster) strike(ctx context.Context, s strike, f *fleet) error {
	what, _ := faultNamed(s.fault)
	var n *node
	if what.atNode {
		n = c.nodes[s.node]
	}
	c.report.say("%s; %d clients are away, %d messages received", s, f.absent(), c.report.messages.Load())
	c.report.tally("faults")
	if what.about != "node" && what.about != "clients" {
		c.stores.begin()
		defer func() { _ = recovered(&c.stores, nil) }()
	}
	if what.loses != nil && what.loses(c.config) {
		c.report.tally("faults that may lose something")
		open := c.ledger.losses.open
		if what.maybe { // while nothing is stored, nothing is lost
			open = c.ledger.losses.openMaybe
		}
		c.lossOver = open()
		defer c.lossOver()
	}
	if what.doubts {
		defer c.doubtful.open()()
	}
	if err := what.begin(ctx, c, n); err != nil {
		return err
	}
	pause(ctx, s.lasts)
	// Also after ctx has ended, because a paused process cannot be ended.
	err := what.mend(context.WithoutCancel(ctx), c, n)
	c.report.say("%s mended", s.fault)
	return err
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}
