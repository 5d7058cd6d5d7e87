package chat

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/wire"
)

const (
	// defaultPage and maxPage are how many messages GET /messages answers with at
	// the most, pageBytes after how much content a page ends early.
	defaultPage = 100
	maxPage     = 1000
	pageBytes   = 1 << 20
)

func (s *Service) serveHistory(w http.ResponseWriter, r *http.Request) {
	query, err := readQuery(r, "channel", "after", "before", "limit")
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	who, err := s.authenticate(r)
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	q, err := parseHistoryQuery(query)
	if err == nil {
		err = s.mayJoin(r.Context(), who.User, q.channel)
	}
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	read := s.pageAfter
	if q.backward {
		read = s.pageBefore
	}
	page, err := read(r.Context(), q)
	if err != nil {
		s.refuseRequest(w, r, s.unavailable(portHistory, "reading the history", err))
		return
	}
	body := struct {
		Messages []wire.Message `json:"messages"`
		More     bool           `json:"more"`
		Gap      bool           `json:"gap,omitempty"`
	}{make([]wire.Message, len(page.messages)), page.more, page.gap}
	for i, m := range page.messages {
		body.Messages[i] = wireMessage(m, "")
	}
	answer(w, http.StatusOK, body)
}

// historyQuery asks for messages of a channel behind a place, the zero Place for
// the oldest, or backward for those before one, for the newest.
type historyQuery struct {
	channel  string
	place    Place
	backward bool
	limit    int
}

func parseHistoryQuery(values url.Values) (q historyQuery, err error) {
	q.channel = values.Get("channel")
	q.backward = values.Has("before")
	name := "after"
	if q.backward {
		name = "before"
		if values.Has("after") {
			return q, wrapf(ErrInvalid, "after and before exclude each other")
		}
	}
	if id := values.Get(name); id != "" {
		of, place, err := ParseID(id)
		if err != nil {
			return q, err
		}
		if values.Has("channel") && of != q.channel {
			return q, wrapf(ErrInvalid, "%s is an id of another channel", name)
		}
		q.channel, q.place = of, place
	}
	q.limit = defaultPage
	if text := values.Get("limit"); text != "" {
		q.limit, err = strconv.Atoi(text)
		if err != nil || q.limit < 1 {
			return q, wrapf(ErrInvalid, "limit is not a positive number")
		}
	}
	q.limit = min(q.limit, maxPage)
	return q, nil
}

// historyPage is what of a channel goes out at once, oldest first and without a hole
// in it. There is more in the direction that was asked for. A gap is of messages that
// are no longer kept: right before the page or, reading backward, between the page and
// what it was to end at.
type historyPage struct {
	messages  []Message
	more, gap bool
}

func (s *Service) pageAfter(ctx context.Context, q historyQuery) (page historyPage, err error) {
	msgs, err := s.cfg.history.After(ctx, q.channel, q.place, q.limit+1)
	if errors.Is(err, ErrGone) {
		page.gap, err = true, nil
	}
	if err != nil {
		return page, err
	}
	n := fitting(slices.All(msgs), q.limit)
	page.messages, page.more = msgs[:n], n < len(msgs)
	if n > 0 && !page.more {
		// The messages end here, or before a hole: the next page says so then.
		last, err := s.cfg.history.Last(ctx, q.channel)
		if err != nil {
			return page, err
		}
		page.more = last != msgs[n-1].Place
	}
	return page, nil
}

func (s *Service) pageBefore(ctx context.Context, q historyQuery) (page historyPage, err error) {
	end := q.place // of the message behind the page
	if end == (Place{}) {
		last, err := s.cfg.history.Last(ctx, q.channel)
		if err != nil {
			return page, err
		}
		end = Place{Epoch: last.Epoch, Seq: last.Seq + 1}
	}
	if end.Seq <= 1 {
		return page, nil // nothing was ever before it
	}
	run, err := s.runBefore(ctx, q.channel, end, q.limit+1)
	if err != nil {
		return page, err
	}
	if len(run) == 0 || run[len(run)-1].Place.Seq != end.Seq-1 {
		page.gap = true
		run, err = s.runBeforeHole(ctx, q.channel, end, run, q.limit+1)
		if err != nil || len(run) == 0 {
			return page, err
		}
	}
	n := fitting(slices.Backward(run), q.limit)
	page.messages, page.more = run[len(run)-n:], n < len(run)
	if first := run[0].Place; !page.more && first.Seq > 1 {
		page.gap = true
		oldest, err := s.keptAfter(ctx, q.channel, Place{Epoch: first.Epoch})
		if err != nil {
			return page, err
		}
		page.more = oldest.Epoch == first.Epoch && oldest.Seq < first.Seq
	}
	return page, nil
}

// runBefore is the last run of messages without a hole among the count places before
// end: it may end before a hole, and is empty where none of these is kept.
func (s *Service) runBefore(ctx context.Context, channel string, end Place, count int) (run []Message, err error) {
	at := Place{Epoch: end.Epoch, Seq: end.Seq - 1 - min(uint64(count), end.Seq-1)}
	for at.Seq+1 < end.Seq {
		msgs, err := s.cfg.history.After(ctx, channel, at, int(end.Seq-1-at.Seq))
		hole := errors.Is(err, ErrGone)
		if err != nil && !hole {
			return nil, err
		}
		behind := func(m Message) bool { return m.Place.Epoch != end.Epoch || m.Place.Seq >= end.Seq }
		if i := slices.IndexFunc(msgs, behind); i >= 0 {
			msgs = msgs[:i]
		}
		if len(msgs) == 0 || msgs[0].Place.Seq <= at.Seq {
			return run, nil
		}
		if hole {
			run = nil
		}
		run = append(run, msgs...)
		at = msgs[len(msgs)-1].Place
	}
	return run, nil
}

// runBeforeHole is the last run of messages before a hole that ends at end. near is
// what runBefore found among the count places before end.
func (s *Service) runBeforeHole(ctx context.Context, channel string, end Place, near []Message, count int) ([]Message, error) {
	last, err := s.cfg.history.Last(ctx, channel)
	if err != nil || last.Epoch != end.Epoch || end.Seq > last.Seq+1 {
		return nil, err // where end is nobody knows
	}
	newest := uint64(0)
	if len(near) > 0 {
		newest = near[len(near)-1].Place.Seq
	} else if newest, err = s.newestBefore(ctx, channel, end); err != nil || newest == 0 {
		return nil, err
	}
	return s.runBefore(ctx, channel, Place{Epoch: end.Epoch, Seq: newest + 1}, count)
}

// newestBefore is the sequence number of the newest message that is kept before end, 0
// for none. It is searched by halves: a hole may be as wide as a history.
func (s *Service) newestBefore(ctx context.Context, channel string, end Place) (uint64, error) {
	behind := func(seq uint64) (uint64, error) { // 0: none before end
		p, err := s.keptAfter(ctx, channel, Place{Epoch: end.Epoch, Seq: seq})
		if p.Epoch != end.Epoch || p.Seq <= seq || p.Seq >= end.Seq {
			return 0, err
		}
		return p.Seq, err
	}
	kept, err := behind(0)
	if err != nil || kept == 0 {
		return 0, err
	}
	for none := end.Seq - 1; kept < none; { // nothing is kept between none and end
		middle := kept + (none-kept)/2
		next, err := behind(middle)
		if err != nil {
			return 0, err
		}
		if next == 0 {
			none = middle
		} else {
			kept = next
		}
	}
	return kept, nil
}

// keptAfter is the place of the first message that is kept behind p, the zero Place
// for none. Where p is not known it is that of the oldest.
func (s *Service) keptAfter(ctx context.Context, channel string, p Place) (Place, error) {
	msgs, err := s.cfg.history.After(ctx, channel, p, 1)
	if errors.Is(err, ErrGone) {
		err = nil
	}
	if err != nil || len(msgs) == 0 {
		return Place{}, err
	}
	return msgs[0].Place, nil
}

// fitting is how many of these go onto a page.
func fitting(msgs iter.Seq2[int, Message], limit int) (n int) {
	bytes := 0
	for _, m := range msgs {
		if n == limit || bytes > pageBytes {
			break
		}
		n++
		bytes += len(m.Content)
	}
	return n
}

func (s *Service) servePublish(w http.ResponseWriter, r *http.Request) {
	if _, err := readQuery(r); err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	who, err := s.authenticate(r)
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	var body struct {
		Content string  `json:"content"`
		Channel *string `json:"channel"`
	}
	if err := wire.DecodeStrict(http.MaxBytesReader(w, r.Body, maxBody), &body); err != nil {
		refuseBody(w, err)
		return
	}
	if s.posts != nil && !who.User.Admin() {
		if wait, ok := s.posts.Take(who.User.Name); !ok {
			setRetryAfter(w, wait)
			s.refuseRequest(w, r, wrapf(errTooFast, "commands too fast, wait"))
			return
		}
	}
	channel, err := channelOf(body.Channel)
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	// Who asks may go away while it is stored: it is handed on all the same.
	ctx, cancel := lazyctx.WithTimeout(context.WithoutCancel(r.Context()), portTimeout)
	defer cancel()
	m, err := s.publish(ctx, who.User, channel, body.Content)
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	answer(w, http.StatusCreated, wireMessage(m, ""))
}
