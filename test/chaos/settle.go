package chaos

import (
	"context"
	"fmt"
	"time"
)

const (
	// connectWithin is how long all clients may take to come, and to come back
	// once nothing is broken any more.
	connectWithin = 60 * time.Second
	// catchUpWithin is how long the last acknowledged message may take to everybody, and
	// a page of the history to be read.
	catchUpWithin = 20 * time.Second
	// strayWithin is how long one may take that was stored by a node that could not
	// tell the others of it, and its publisher that it is unavailable: the others
	// look for such ones once a minute, and for a history that went back in time.
	strayWithin = 75 * time.Second
	// tellWithin is how long comings and goings may take to be told of.
	tellWithin = 30 * time.Second
	// slack is for what is exact only within a lease.
	slack = 10 * time.Second
	// longestWindow is more than nodes gather comings and goings for: 2 s while very
	// many come.
	longestWindow = 3 * time.Second
)

// arrive has everybody connect, the observers first, who have to be told of every
// other user's coming once. It reports false when somebody does not get in: then
// there is nothing to break.
func (f *fleet) arrive(ctx, watching, staying context.Context) bool {
	report := f.cluster.report
	observers, others := f.clients[:len(f.observers)], f.clients[len(f.observers):]
	f.connect(watching, observers)
	if wrong := until(ctx, connectWithin, func() string { return missing(observers) }); wrong != "" {
		report.find(findLost, "observers do not get in: %s", wrong)
		return false
	}
	for _, o := range f.observers {
		o.reset()
	}
	began := time.Now()
	f.connect(staying, others)
	if wrong := until(ctx, connectWithin, func() string { return missing(f.clients) }); wrong != "" {
		report.find(findLost, "clients do not get in: %s", wrong)
		return false
	}
	report.say("%d clients came in %v", len(f.clients), time.Since(began).Round(10*time.Millisecond))
	f.toldOnce(ctx, true)
	f.present(ctx, f.expected(), slack)
	return true
}

// toldOnce checks that every observer is told once of everybody else who came, or
// went.
func (f *fleet) toldOnce(ctx context.Context, joined bool) {
	want := f.expected()
	for _, o := range f.observers {
		delete(want, o.client.user.Name)
	}
	for name := range want {
		want[name] = 1
	}
	for _, o := range f.observers {
		wrong := until(ctx, tellWithin, func() string {
			told := o.told(joined)
			for _, other := range f.observers {
				delete(told, other.client.user.Name) // came and went around the same time
			}
			return difference(want, told)
		})
		if wrong != "" {
			f.cluster.report.find(findPresence, "%s, told whether users joined (%t): %s", o.client.user.Name, joined, wrong)
		}
	}
}

// present checks that every node comes to know exactly who is connected, within a
// time, and goes on knowing it.
func (f *fleet) present(ctx context.Context, want map[string]int, within time.Duration) {
	began := time.Now()
	exact := func() string {
		for _, n := range f.cluster.nodes {
			who, err := f.cluster.presence(ctx, n)
			if err != nil {
				return fmt.Sprintf("%s: %v", n.name, err)
			}
			if off := difference(want, who); off != "" {
				return fmt.Sprintf("%s says of who is connected: %s", n.name, off)
			}
		}
		return ""
	}
	if wrong := until(ctx, within, exact); wrong != "" {
		f.cluster.report.find(findPresence, "after %v %s", within, wrong)
		return
	}
	f.cluster.report.say("every node knows exactly who is connected, after %v", time.Since(began).Round(10*time.Millisecond))
	if wrong := exact(); wrong != "" {
		f.cluster.report.find(findPresence, "no longer: %s", wrong)
	}
}

// settle checks that everybody comes back and has everything once nothing is
// broken and nothing is published any more.
func (f *fleet) settle(ctx context.Context) {
	report := f.cluster.report
	began := time.Now()
	pause(ctx, shortLife) // those whose tokens end come back with ones that do not
	if wrong := until(ctx, connectWithin, func() string { return missing(f.clients) }); wrong != "" {
		report.find(findLost, "clients do not get back in: %s", wrong)
	}
	for _, any := range []bool{false, true} {
		what, within := "all that was acknowledged", catchUpWithin
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
			report.say("every client has %s or was told of its loss, after %v", what, time.Since(began).Round(10*time.Millisecond))
		case silent > 0:
			report.find(findSilent, "not every client has %s or was told of its loss within %v: %s", what, within, wrong)
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

// behind is what some client still lacks of what was acknowledged or, when any
// counts, of what others got; or "". It counts the clients, a channel each, that wait in
// an epoch that is over.
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

// account counts what was lost and whether clients were told.
func (f *fleet) account() Losses {
	losses := f.cluster.ledger.lost()
	for _, c := range f.clients {
		missing, _ := c.behind(false)
		losses.Unreported += len(missing)
	}
	return losses
}

// missing is who of some clients is not connected, or "".
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
