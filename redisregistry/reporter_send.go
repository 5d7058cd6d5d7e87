package redisregistry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// reportAtOnce is how many entries a report contains at most.
const reportAtOnce = 200

// run sends reports while entries are queued, and renews the lease, until ctx ends. It retries
// failed reports.
func (p *presenceReporter) run(ctx context.Context) {
	tick := time.NewTicker(p.registry.cfg.lease / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.leaseDue = true
		case <-p.wake:
		}
		pause := retryAtFirst
		for {
			more, err := p.sendReport(ctx)
			if err == nil {
				p.lastError.Store(nil)
			}
			if err == nil && !more {
				break
			}
			if err == nil {
				pause = retryAtFirst
				continue
			}
			p.lastError.Store(&reason{err})
			signal(p.failedSignal)
			p.registry.cfg.logger.Debug("reporting presence to Redis failed", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-p.retryNow:
				pause = retryAtFirst
			case <-time.After(pause):
				pause = min(2*pause, retryAtLast)
			}
		}
	}
}

// sendReport sends one report if there is anything to report. It returns whether there may be
// more.
func (p *presenceReporter) sendReport(ctx context.Context) (more bool, err error) {
	compared, err := p.prepare(ctx)
	if err != nil {
		return false, err
	}
	if err := p.compareEntries(ctx); err != nil {
		return false, err
	}
	rep := p.nextReport()
	if rep == nil {
		return false, nil
	}
	reply, err := p.registry.report(ctx, rep.mode, p.registry.node, p.version, p.era, p.historyName, rep.keys, rep.args)
	if err != nil {
		p.putBack(rep)
		return false, fmt.Errorf("reporting presence: %w", err)
	}
	switch reply.status {
	case "ok":
		p.lastReport.Store(int64(uptime()))
		p.registry.orders.begin(reply.era, reply.newest)
		if p.era != "" && p.era != reply.era {
			p.emptied() // Redis lost its data after the lease expired
		}
		p.era, p.leaseHeld, p.leaseDue = reply.era, rep.mode != "end", false
		if rep.mode == "begin" {
			p.registry.refuse(&p.registry.otherHistory, nil)
			p.historyCompared(compared)
			p.registry.leaseSince.Store(int64(uptime()))
			p.recheck()
		}
		p.confirm(rep, reply)
		if rep.mode == "end" {
			close(p.ended)
		}
		return true, nil
	case "emptied":
		p.putBack(rep)
		p.era, p.leaseHeld = "", false
		p.emptied()
	case "lapsed":
		p.putBack(rep)
		p.leaseHeld = false
		p.lapsed()
	case "differs":
		p.putBack(rep)
		err := otherHistoryError(p.historyName, reply.history)
		p.registry.refuse(&p.registry.otherHistory, err)
		p.historyCompared(compared)
		p.registry.closeAll("another history, reconnect")
		return false, err
	default:
		p.putBack(rep)
		return false, fmt.Errorf("reporting presence: the script returned status %q", reply.status)
	}
	return true, nil
}

// prepare runs before a lease is acquired. It reads the name of the history. It also carries
// out the orders that were given while this node had no lease, so that the report does not
// contain sockets that they close. The returned channel is for historyCompared.
func (p *presenceReporter) prepare(ctx context.Context) (compared chan struct{}, err error) {
	p.mu.Lock()
	compared = p.compareDone
	needed := !p.ending && !p.leaseReturned() && (compared != nil || !p.leaseHeld)
	p.mu.Unlock()
	if !needed {
		return nil, nil
	}
	if compared != nil {
		p.leaseHeld = false // a new lease is acquired
		p.historyName = historyUnknown
	}
	if p.historyName == historyUnknown {
		if p.historyName, err = p.registry.historyName(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.registry.runMissedOrders(ctx); err != nil {
		return nil, fmt.Errorf("reading orders to close sockets: %w", err)
	}
	return compared, nil
}

// historyCompared closes the channel that compareHistory returned. compared may be nil.
func (p *presenceReporter) historyCompared(compared chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if compared != nil && p.compareDone == compared {
		p.compareDone = nil
		close(compared)
	}
}

// compareEntries queues all entries, and those that Redis has for this node and this node has
// not.
func (p *presenceReporter) compareEntries(ctx context.Context) error {
	p.mu.Lock()
	done := p.recheckDone
	p.mu.Unlock()
	if done == nil || !p.leaseHeld {
		return nil
	}
	r := p.registry
	has, err := atOnce(ctx, r.store, func(ctx context.Context) ([]string, error) {
		return r.client.SMembers(ctx, r.store.keys.entries(r.node)).Result()
	})
	if err != nil {
		return fmt.Errorf("reading this node's presence from Redis: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.recheckDone)
	p.recheckDone = nil
	p.leaseDue = true
	p.enqueueAll()
	for _, text := range has {
		channel, user, _ := strings.Cut(text, "\n")
		if s := (seat{channel, user}); p.entries[s] == nil {
			p.enqueue(p.entry(s))
		}
	}
	return nil
}

// nextReport makes a report of queued entries. It returns nil if there is nothing to report.
func (p *presenceReporter) nextReport() *report {
	p.mu.Lock()
	defer p.mu.Unlock()
	rep := &report{mode: "report"}
	if p.renewAsked.Swap(false) {
		p.leaseDue = true
	}
	now := time.Now()
	var later []*entry
	for i, e := range p.queue {
		if len(rep.entries) == reportAtOnce {
			later = append(later, p.queue[i:]...)
			break
		}
		if e.notBefore.After(now) {
			later = append(later, e)
			continue
		}
		e.queued = false
		rep.add(p.registry.store.keys, e)
	}
	p.queue = later
	switch {
	case p.leaseReturned():
		return nil
	case !p.leaseHeld && p.ending:
		close(p.ended) // there is no lease to return
		return nil
	case !p.leaseHeld:
		rep.mode = "begin"
	case len(rep.entries) > 0 || p.leaseDue:
	case p.ending && len(p.queue) == 0:
		rep.mode = "end"
	default:
		return nil
	}
	p.version++
	return rep
}

// confirm records that Redis has a report, and sends the receipts.
func (p *presenceReporter) confirm(rep *report, reply reply) {
	_, newest := parseNewest(reply.newest)
	at := &mark{reply.era, newest}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, e := range rep.entries {
		result := reply.changes[i]
		e.known, e.joinSize = len(rep.members[i]) > 0, result.joinSize
		if !e.known {
			e.joinSize = 0
		}
		if !e.queued && len(e.members) == 0 {
			delete(p.entries, e.seat)
		}
		if e.channel == "" {
			for rank, m := range rep.members[i] {
				if m.reportedAt == 0 {
					m.reportedAt, m.newestOrder, m.rank, m.otherNodes = reply.now, at, rank+1, result.otherNodes
				}
			}
		}
		for _, w := range rep.waiting[i] {
			w.done <- receipt{rep.members[i], result.total}
		}
	}
}

// putBack queues the entries of a failed report again: Redis may or may not have it.
func (p *presenceReporter) putBack(rep *report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, e := range rep.entries {
		for _, w := range rep.waiting[i] {
			if slices.Contains(e.members, w.member) { // the others have given up
				e.waiting = append(e.waiting, w)
			}
		}
		p.enqueue(e)
	}
}

// emptied queues all entries after Redis lost its data. Users who left this node are reported
// only after a lease, because they may still be on a node that has not reported yet.
func (p *presenceReporter) emptied() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		if e.known && len(e.members) == 0 {
			e.notBefore = time.Now().Add(p.registry.cfg.lease)
		}
		p.enqueue(e)
	}
}

// lapsed queues all entries after the lease expired: other nodes may have announced that these
// users left.
func (p *presenceReporter) lapsed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		e.known = false
	}
	p.enqueueAll()
}

// failure returns why the last report failed, or nil.
func (p *presenceReporter) failure() error {
	if why := p.lastError.Load(); why != nil {
		return why.err
	}
	return nil
}

// leaseReturned reports whether the lease was returned at the end.
func (p *presenceReporter) leaseReturned() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// end reports what is queued and returns the lease. It returns an error if Redis cannot be
// used.
func (p *presenceReporter) end(ctx context.Context) error {
	p.mu.Lock()
	p.ending = true
	for _, e := range p.queue {
		e.notBefore = time.Time{}
	}
	p.mu.Unlock()
	signal(p.wake)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("removing this node's sockets from Redis: %w", ctx.Err())
		case <-tick.C:
			if err := p.registry.ready(); err != nil {
				return err
			}
		}
	}
}
