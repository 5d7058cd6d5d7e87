package chaos

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/reto10/chat"
)

const (
	// pageLimit is the limit in the request for a page.
	pageLimit = 50
	// readers read channels at once.
	readers = 8
)

// page is an answer of GET /messages.
type page struct {
	Messages []event
	More     bool
	Gap      bool
}

// list reads every channel of the history to its end in both directions, compares the two,
// and records the messages in the ledger.
func (c *cluster) list(ctx context.Context) {
	channels := append([]string{""}, c.groups...)
	for _, name := range c.users {
		channels = append(channels, chat.UserChannel(name))
	}
	next := make(chan string)
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() {
			for channel := range next {
				c.listChannel(ctx, channel)
			}
		})
	}
	for _, channel := range channels {
		next <- channel
	}
	close(next)
	reading.Wait()
	c.report.say("read %d channels of the history in both directions", len(channels))
}

func (c *cluster) listChannel(ctx context.Context, channel string) {
	most := c.ledger.countIn(channel)/pageLimit + 10
	forward, ok := readAll(c.report, channel, false, most, func(id string) (page, error) { return c.page(ctx, channel, "after", id) })
	if !ok {
		return
	}
	backward, ok := readAll(c.report, channel, true, most, func(id string) (page, error) { return c.page(ctx, channel, "before", id) })
	if !ok {
		return
	}
	same := func(m, n event) bool { return m.ID == n.ID && m.Content == n.Content }
	if !slices.EqualFunc(forward, backward, same) {
		c.report.find(findPages, "%q has %s read forward and %s read backward", channel, extent(forward), extent(backward))
	}
	for _, m := range forward {
		if _, pos, err := chat.ParseID(m.ID); err == nil {
			c.ledger.listed(channel, pos, m.Content)
		}
	}
}

func extent(messages []event) string {
	if len(messages) == 0 {
		return "no messages"
	}
	return fmt.Sprintf("%d messages, %s to %s", len(messages), messages[0].ID, messages[len(messages)-1].ID)
}

// readAll reads page by page to the end, at most so many pages. It returns the messages,
// oldest first, and false if the content of the channel cannot be told.
func readAll(r *report, channel string, backward bool, most int, read func(id string) (page, error)) (all []event, ok bool) {
	direction := "forward"
	if backward {
		direction = "backward"
	}
	find := func(format string, args ...any) {
		r.find(findPages, "reading %q %s: %s", channel, direction, fmt.Sprintf(format, args...))
	}
	id := ""
	for n := 0; ; n++ {
		if n == most {
			find("no end after %d pages, at %s", n, id)
			return nil, false
		}
		p, err := read(id)
		switch {
		case err != nil:
			find("after %d pages, at %s: %v", n, id, err)
			return nil, false
		case len(p.Messages) == 0 && p.More:
			find("an empty page after %s says that there is more", id)
			return nil, false
		case p.Gap && n > 0 && (!backward || p.More):
			find("messages beside %s are gone", id)
		}
		if backward {
			all = slices.Concat(p.Messages, all)
		} else {
			all = append(all, p.Messages...)
		}
		if !p.More {
			break
		}
		id = p.Messages[len(p.Messages)-1].ID
		if backward {
			id = p.Messages[0].ID
		}
	}
	var at cursor
	for _, m := range all {
		of, pos, err := chat.ParseID(m.ID)
		if err != nil || of != channel {
			find("the id %q", m.ID)
			return nil, false
		}
		if at.started {
			if wrong := at.next(pos); wrong != "" {
				find("%s: %s right after %v", wrong, m.ID, at.at)
			}
		}
		at.begin(pos)
	}
	return all, true
}

// page requests a page from any node, and retries while the node cannot answer.
func (c *cluster) page(ctx context.Context, channel, direction, id string) (p page, err error) {
	query := url.Values{"channel": {channel}, direction: {id}, "limit": {strconv.Itoa(pageLimit)}}
	if channel == "" {
		query.Del("channel")
	}
	as := admin
	if name, own := strings.CutPrefix(channel, "@"); own { // nobody else may read it
		as = chat.User{Name: name, Role: chat.RoleUser}
	}
	within := replayWithin
	if c.unreadable.Load() {
		within = 0 // one try: there is a finding already
	}
	wrong := until(ctx, within, func() string {
		n := c.nodes[int(c.asked.Add(1))%len(c.nodes)]
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+"/messages?"+query.Encode(), nil)
		if err != nil {
			return err.Error()
		}
		p = page{}
		status, err := c.ask(as, req, http.StatusOK, &p)
		switch {
		case err != nil:
			return err.Error()
		case status != http.StatusOK:
			return fmt.Sprintf("%s answers %d", n.name, status)
		}
		return ""
	})
	if wrong != "" {
		c.unreadable.Store(true)
		return p, fmt.Errorf("for %v %s", within, wrong)
	}
	return p, nil
}
