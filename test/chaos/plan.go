package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// strike is one fault of a plan.
type strike struct {
	at    time.Duration // from the beginning
	lasts time.Duration
	fault string
	node  int // where, of those that strike at a node
}

func (s strike) String() string {
	where := ""
	if f, _ := faultNamed(s.fault); f.atNode {
		where = fmt.Sprintf(" at node %d", s.node+1)
	}
	if s.lasts == 0 {
		return s.fault + where
	}
	return fmt.Sprintf("%s%s for %v", s.fault, where, s.lasts)
}

// The pause between two faults. Faults of different things may overlap.
const (
	leastGap = 500 * time.Millisecond
	mostGap  = 3 * time.Second
)

// plan distributes faults over the length of a run. The same configuration gives the same
// plan. Every fault that applies comes once before one comes again, if the length allows it.
// Two faults of the same thing never overlap.
func plan(c Config) []strike {
	rng := rand.New(rand.NewPCG(c.Seed, 1))
	var deck []fault
	for _, f := range faults {
		if (c.Faults == nil || slices.Contains(c.Faults, f.name)) && f.applies(c) && f.least < c.Length {
			deck = append(deck, f)
		}
	}
	if len(deck) == 0 {
		return nil
	}
	var strikes []strike
	busy := make(map[string]time.Duration) // until when, by what the fault is about
	at := time.Duration(0)
	for {
		rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		for _, f := range deck {
			at += within(rng, leastGap, mostGap)
			at = max(at, busy[f.about])
			if f.also != "" {
				at = max(at, busy[f.also])
			}
			s := strike{at: at, lasts: within(rng, f.least, f.most), fault: f.name}
			if f.atNode {
				s.node = rng.IntN(c.Nodes)
			}
			if s.at >= c.Length {
				return strikes
			}
			s.lasts = min(s.lasts, max(f.least, c.Length-s.at))
			busy[f.about] = s.at + s.lasts + f.recovery
			if f.also != "" {
				busy[f.also] = busy[f.about]
			}
			strikes = append(strikes, s)
		}
	}
}

func within(rng *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(rng.Int64N(int64(most-least)+1))).Round(10 * time.Millisecond)
}

// describe returns the plan for people, one strike per line.
func describe(strikes []strike) string {
	var text strings.Builder
	for _, s := range strikes {
		fmt.Fprintf(&text, "%6.2fs %s\n", s.at.Seconds(), s)
	}
	return text.String()
}
