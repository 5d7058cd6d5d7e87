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
	who, err := s.authenticate(r)
	if err != nil {
		s.refuseRequest(w, r, err)
		return
	}
	q, err := parseHistoryQuery(r.URL.Query())
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

// historyPage is what of a channel goes out at once, oldest first. There is more in
// the direction that was asked for. A gap is before the page: of messages that are no
// longer kept.
type historyPage struct {
	messages  []Message
	more, gap bool
}

func (s *Service) pageAfter(ctx context.Context, q historyQuery) (page historyPage, err error) {
	msgs, err := s.cfg.history.After(ctx, q.channel, q.place, q.limit+1)
	if errors.Is(err, ErrGone) {
		page.gap = true
		msgs, err = s.cfg.history.After(ctx, q.channel, Place{}, q.limit+1)
	}
	n := fitting(slices.All(msgs), q.limit)
	page.messages, page.more = msgs[:n], n < len(msgs)
	return page, err
}

// pageBefore finds by the places, which have no holes, where the page begins.
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
	count := min(uint64(q.limit)+1, end.Seq-1)
	start := Place{Epoch: end.Epoch, Seq: end.Seq - 1 - count}
	msgs, err := s.cfg.history.After(ctx, q.channel, start, int(count))
	if errors.Is(err, ErrGone) { // not all of these are kept
		msgs, err = s.cfg.history.After(ctx, q.channel, Place{}, int(count))
	}
	if err != nil {
		return page, err
	}
	behind := slices.IndexFunc(msgs, func(m Message) bool { return m.Place.Epoch != end.Epoch || m.Place.Seq >= end.Seq })
	if behind >= 0 {
		msgs = msgs[:behind]
	}
	if len(msgs) == 0 || msgs[len(msgs)-1].Place.Seq != end.Seq-1 {
		return historyPage{gap: true}, nil
	}
	n := fitting(slices.Backward(msgs), q.limit)
	page.messages, page.more = msgs[len(msgs)-n:], n < len(msgs)
	page.gap = !page.more && page.messages[0].Place.Seq > 1
	return page, nil
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
