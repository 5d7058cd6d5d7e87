package chaos

import (
	"context"
	"fmt"
	"time"
)

const (
	// connectWithin bounds the time until all clients are connected, at the start and after the
	// last fault.
	connectWithin = 60 * time.Second
	// replayWithin bounds the time until every client has the last acknowledged message, and
	// the reading of a page of the history.
	replayWithin = 20 * time.Second
	// strayWithin bounds it for a message that a node stored but could not publish, so that its
	// publisher got "unavailable". The other nodes check for such messages once a minute, and
	// for a history that went back in time.
	strayWithin = 75 * time.Second
	// announceWithin bounds the time until joins and leaves are announced.
	announceWithin = 30 * time.Second
	// slack is for what is exact only after the time of a lease.
	slack = 10 * time.Second
	// longestWindow is longer than nodes batch joins and leaves: 2 s while many users join.
	longestWindow = 3 * time.Second
)

// arrive connects all clients, the observers first: each observer must receive every other
// user's join once. It reports false if a client cannot connect; then there is nothing to
// break.
func (f *fleet) arrive(ctx, watching, staying context.Context) bool {
	report := f.cluster.report
	observers, others := f.clients[:len(f.observers)], f.clients[len(f.observers):]
	f.connect(watching, observers)
	if wrong := until(ctx, connectWithin, func() string { return missing(observers) }); wrong != "" {
		report.find(findLost, "observers cannot connect: %s", wrong)
		return false
	}
	for _, o := range f.observers {
		o.reset()
	}
	began := time.Now()
	f.connect(staying, others)
	if wrong := until(ctx, connectWithin, func() string { return missing(f.clients) }); wrong != "" {
		report.find(findLost, "clients cannot connect: %s", wrong)
		return false
	}
	report.say("%d clients connected in %v", len(f.clients), time.Since(began).Round(10*time.Millisecond))
	f.announcedOnce(ctx, true)
	f.present(ctx, f.expected(), slack)
	return true
}

// announcedOnce checks that every observer received the join, or the leave, of every other
// user once.
func (f *fleet) announcedOnce(ctx context.Context, joined bool) {
	want := f.expected()
	for _, o := range f.observers {
		delete(want, o.client.user.Name)
	}
	for name := range want {
		want[name] = 1
	}
	for _, o := range f.observers {
		wrong := until(ctx, announceWithin, func() string {
			got := o.announced(joined)
			for _, other := range f.observers {
				delete(got, other.client.user.Name) // joined and left at about the same time
			}
			return difference(want, got)
		})
		if wrong != "" {
			f.cluster.report.find(findPresence, "%s received joins (%t, else leaves): %s", o.client.user.Name, joined, wrong)
		}
	}
}

// present checks that every node lists exactly the connected users within a time, and still
// does so a moment later.
func (f *fleet) present(ctx context.Context, want map[string]int, within time.Duration) {
	began := time.Now()
	exact := func() string {
		for _, n := range f.cluster.nodes {
			who, err := f.cluster.presence(ctx, n)
			if err != nil {
				return fmt.Sprintf("%s: %v", n.name, err)
			}
			if off := difference(want, who); off != "" {
				return fmt.Sprintf("%s lists the wrong users: %s", n.name, off)
			}
		}
		return ""
	}
	if wrong := until(ctx, within, exact); wrong != "" {
		f.cluster.report.find(findPresence, "after %v %s", within, wrong)
		return
	}
	f.cluster.report.say("every node lists exactly the connected users after %v", time.Since(began).Round(10*time.Millisecond))
	if wrong := exact(); wrong != "" {
		f.cluster.report.find(findPresence, "no longer: %s", wrong)
	}
}

// settle checks that all clients reconnect and have all messages, after the last fault and
// the last publish.
func (f *fleet) settle(ctx context.Context) {
	report := f.cluster.report
	began := time.Now()
	pause(ctx, shortLife) // clients whose tokens expire reconnect with tokens that do not
	if wrong := until(ctx, connectWithin, func() string { return missing(f.clients) }); wrong != "" {
		report.find(findLost, "clients cannot reconnect: %s", wrong)
	}
	for _, any := range []bool{false, true} {
		what, within := "all acknowledged messages", replayWithin
		if any {
			what, within = "all that others got", strayWithin
		}
		silent := 0
		wrong := until(ctx, within, func() (wrong string) {
			wrong, silent = f.behind(any)
			return wrong
		})
		switch {
		case wrong == "":
			report.say("every client has %s or a report of its loss, after %v", what, time.Since(began).Round(10*time.Millisecond))
		case silent > 0:
			report.find(findSilent, "not every client has %s or a report of its loss within %v: %s", what, within, wrong)
		default:
			report.find(findLost, "not every client has %s within %v: %s", what, within, wrong)
		}
	}
	for _, t := range f.talkers {
		if wrong := until(ctx, answerWithin, func() string {
			if n := t.unanswered(); n > 0 {
				return fmt.Sprintf("%d broadcasts of %s are not answered", n, t.client.user.Name)
			}
			return ""
		}); wrong != "" {
			report.find(findPublish, "%s", wrong)
		}
	}
	f.present(ctx, f.expected(), f.cluster.config.Lease+slack)
}

// behind describes the acknowledged messages that a client lacks or, if any is true, those
// that other clients received. It counts as silent, per client and channel, those that wait
// in an epoch that has ended.
func (f *fleet) behind(any bool) (wrong string, silent int) {
	n, example := 0, ""
	for _, c := range f.clients {
		missing, more := c.behind(any)
		silent += more
		if len(missing) > 0 {
			n++
			example = missing[0]
		}
	}
	if n == 0 {
		return "", 0
	}
	return fmt.Sprintf("%d clients lack messages, such as: %s", n, example), silent
}

// account counts the lost messages and the losses that were reported to clients.
func (f *fleet) account() Losses {
	losses := f.cluster.ledger.lost()
	for _, c := range f.clients {
		missing, _ := c.behind(false)
		losses.Unreported += len(missing)
	}
	return losses
}

// missing names the clients that are not connected, "" if there are none.
func missing(clients []*client) string {
	n, example := 0, ""
	for _, c := range clients {
		if c.connected() == nil {
			n++
			example = c.user.Name
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d are not connected, such as %s", n, len(clients), example)
}
