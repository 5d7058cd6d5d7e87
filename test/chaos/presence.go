package chaos

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
)

// observer is an admin's socket that receives the joins and leaves of the service. Within
// one connection, each user's joins and leaves must alternate.
type observer struct {
	client *client

	mu     sync.Mutex      // guards what follows
	inside map[string]bool // by username, as announced on this connection
	joined map[string]int  // announced since the last reset
	left   map[string]int
}

func newObserver(c *client) *observer {
	o := &observer{client: c, inside: make(map[string]bool)}
	o.reset()
	c.hear = o.hear
	return o
}

func (o *observer) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.joined, o.left = make(map[string]int), make(map[string]int)
}

func (o *observer) hear(e event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	report := o.client.report
	switch e.Type {
	case "":
		o.inside = make(map[string]bool) // what happens until the next one is not heard
	case "user_joined", "user_left":
		if e.Channel != "" {
			return
		}
		report.tally(e.Type + " received by observers")
		joined := e.Type == "user_joined"
		if joined {
			o.joined[e.Username]++
		} else {
			o.left[e.Username]++
		}
		switch was, known := o.inside[e.Username]; {
		case !known || was != joined:
		case o.client.cluster.doubtful.recently(noticeWithin):
			// Redis lost its newer data with the announcement in between, or forgot that the user was
			// there, who then connects to another node.
			report.tally(e.Type + " announced twice after Redis lost data")
		default:
			report.find(findPresence, "%s received %s of %s twice in a row", o.client.user.Name, e.Type, e.Username)
		}
		o.inside[e.Username] = joined
	case "error":
		report.find(findProtocol, "%s got the error %s without a command: %s", o.client.user.Name, e.Code, e.Message)
	}
}

// announced returns how often each user's join or leave was announced since the reset.
func (o *observer) announced(joined bool) map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if joined {
		return maps.Clone(o.joined)
	}
	return maps.Clone(o.left)
}

// presence returns the connected users by a node, each with the number of sockets.
func (c *cluster) presence(ctx context.Context, n *node) (map[string]int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+"/users/connected", nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Count int
		Users []struct {
			Username    string
			Connections int
		}
	}
	status, err := c.ask(admin, req, http.StatusOK, &answer)
	if err != nil {
		return nil, err
	}
	who := make(map[string]int, len(answer.Users))
	if status != http.StatusOK {
		who["(status)"] = status
		return who, nil
	}
	for _, u := range answer.Users {
		who[u.Username] += u.Connections
	}
	if answer.Count != len(answer.Users) {
		who["(count)"] = answer.Count
	}
	return who, nil
}

// difference describes briefly how got differs from want, "" if they are equal.
func difference(want, got map[string]int) string {
	off := make(map[string][2]int)
	for name, n := range want {
		if got[name] != n {
			off[name] = [2]int{n, got[name]}
		}
	}
	for name, n := range got {
		if _, ok := want[name]; !ok {
			off[name] = [2]int{0, n}
		}
	}
	if len(off) == 0 {
		return ""
	}
	const most = 5
	var text strings.Builder
	for _, name := range sorted(off)[:min(most, len(off))] {
		fmt.Fprintf(&text, "%s: %d, want %d; ", name, off[name][1], off[name][0])
	}
	fmt.Fprintf(&text, "%d off in all", len(off))
	return text.String()
}
