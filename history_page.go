package chat

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/reto10/chat/internal/admission"
	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/throttle"
)

const (
	// defaultPage and maxPage are how many messages GET /messages answers with at
	// the most, pageBytes after how much content a page ends early.
	defaultPage = 100
	maxPage     = 1000
	pageBytes   = 1 << 20
)

const (
	// readCount and readBytes bound what is read of the history at once, see [Limit].
	readCount = 128
	readBytes = 64 << 10

	// readTurns is how many readings for pages are under way at once, of a user one. They
	// are few: each takes about a millisecond, and what is published waits behind those
	// that a backend has begun. One that takes longer than slowRead lets another begin
	// while it goes on: what it waits for, as a row that is locked, keeps nobody else.
	readTurns = 4
	slowRead  = 250 * time.Millisecond
	// readsInAll is how many readings for pages are under way at once, those included
	// that are slow or wait for one of the readTurns. For what join commands missed it is
	// [WithOpening], as for sockets that resume.
	readsInAll = 64
	// readsOfUser is how many of these are a user's, of pages and of joins.
	readsOfUser = 2
	// readsWaiting is how many others wait to be among these, of one user as many as
	// there may be pages or sockets. readsWait is how long: of the time that a command
	// may take, some is left for the reading.
	readsWaiting = 1024
	readsWait    = 3 * time.Second
)

const (
	// userReadRate is how much of the history is read for a user, in bytes of content a
	// second, after userReadBurst, for all their pages and sockets together. What is
	// beyond that waits. It is for defaultSocketsPerUser, see newUserReading.
	userReadRate  = 8 << 20
	userReadBurst = 1 << 20
	// readRate and readBurst are likewise, for the pages of all users together: reading,
	// encoding and sending more would leave publishing too little of a small machine.
	readRate  = 128 << 20
	readBurst = 8 << 20
	// readCost is what a reading counts as at the least: one that finds nothing is a
	// question to a backend, too.
	readCost = 4 << 10
)

// errReading is that a reading of the history has waited for its turn in vain, or found
// too many waiting.
var errReading = errors.New("too much of the history is being read")

func newReads(inAll, waiting, waitingOf int) *admission.Gate {
	return admission.New(admission.Limits{
		Inside: inAll, InsideOf: readsOfUser,
		Waiting: waiting, WaitingOf: waitingOf, Wait: readsWait,
	}, nil)
}

// newUserReading grows with the sockets that a user may have, as [WithConnectRate] does:
// all of them may miss something at the same time.
func newUserReading(sockets int) *throttle.Meter {
	per := func(n int) int { return max(n, sockets*(n/defaultSocketsPerUser)) }
	return throttle.NewMeter(per(userReadRate), per(userReadBurst))
}

// newReadTurns has those that are in before wait without an end: slowRead bounds it.
func newReadTurns() *admission.Gate {
	return admission.New(admission.Limits{
		Inside: readTurns, InsideOf: 1,
		Waiting: readsInAll, WaitingOf: readsOfUser,
	}, nil)
}

// historyQuery asks for messages of a channel behind a place, the zero Position for
// the oldest, or backward for those before one, for the newest.
type historyQuery struct {
	channel  string
	place    Position
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

// historyReader reads a channel for a user. All that one reads at once is a step, and
// waits for the user's turn.
type historyReader struct {
	service *Service
	user    string
	channel string
}

// inTurn has one reading of the history done in the user's turn.
func (s *Service) inTurn(ctx context.Context, turns *admission.Gate, user string, read func(context.Context) error) error {
	if err := turns.Enter(ctx, user); err != nil {
		return errors.Join(errReading, err)
	}
	defer turns.Leave(user)
	return s.readHistory(ctx, read)
}

// inPageTurn does the same for a page. The turn ends when the reading does, or is slow.
func (s *Service) inPageTurn(ctx context.Context, user string, read func(context.Context) error) error {
	if err := s.pageReads.Enter(ctx, user); err != nil {
		return errors.Join(errReading, err)
	}
	defer s.pageReads.Leave(user)
	if err := s.readTurns.Enter(ctx, user); err != nil {
		return errors.Join(errReading, err)
	}
	leave := sync.OnceFunc(func() { s.readTurns.Leave(user) })
	defer leave()
	defer time.AfterFunc(slowRead, leave).Stop()
	return s.readHistory(ctx, read)
}

// readHistory has one reading of the history done in the time that a port has.
func (s *Service) readHistory(ctx context.Context, read func(context.Context) error) error {
	ctx, cancel := lazyctx.WithTimeout(ctx, portTimeout)
	defer cancel()
	err := read(ctx)
	s.counts.failed(portHistory, err)
	return err
}

// after is the history's After, as fast as the user may read.
func (r historyReader) after(ctx context.Context, p Position, limit Limit) (msgs []Message, err error) {
	err = r.read(ctx, func(ctx context.Context) (bytes int, err error) {
		msgs, err = r.service.cfg.history.After(ctx, r.channel, p, limit)
		return contentBytes(msgs), err
	})
	return msgs, err
}

// last is the history's Last, likewise.
func (r historyReader) last(ctx context.Context) (p Position, err error) {
	err = r.read(ctx, func(ctx context.Context) (_ int, err error) {
		p, err = r.service.cfg.history.Last(ctx, r.channel)
		return 0, err
	})
	return p, err
}

// read has one reading done, which returns how much content it read, when the user may
// read more, and in the user's turn.
func (r historyReader) read(ctx context.Context, read func(context.Context) (int, error)) error {
	s := r.service
	if delay := max(s.reading.Delay(r.user), s.readingAll.Delay("")); delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.inPageTurn(ctx, r.user, func(ctx context.Context) error {
		bytes, err := read(ctx)
		bytes = max(bytes, readCost)
		s.reading.Use(r.user, bytes)
		s.readingAll.Use("", bytes)
		return err
	})
}

// keptAfter is the place of the first message that is kept behind p, the zero Position
// for none. Where p is not known it is that of the oldest.
func (r historyReader) keptAfter(ctx context.Context, p Position) (Position, error) {
	msgs, err := r.after(ctx, p, Limit{Count: 1})
	if errors.Is(err, ErrGone) {
		err = nil
	}
	if err != nil || len(msgs) == 0 {
		return Position{}, err
	}
	return msgs[0].Position, nil
}

// errDropped is that messages of a page are no longer kept that were when it began.
var errDropped = errors.New("the history dropped messages while they were read")

// historyPage is what of a channel goes out in one answer, oldest first and without a
// hole in it. It is read in steps while it is sent.
type historyPage struct {
	reader historyReader
	step   []Message // read, and to be sent next
	last   Position  // of the last one read
	left   int       // messages that may follow the step
	bytes  int       // content that may follow the step; of a page read backward any

	// A page that is read backward is known before it is sent: left come for certain.
	backward bool
	complete bool // the step is the last one: more and gap hold
	more     bool // there is more in the direction that was asked for
	// gap says that messages are no longer kept: right before the page or, reading
	// backward, between the page and what it was to end at.
	gap bool
}

// openForward reads the first step of the page behind a place.
func (p *historyPage) openForward(ctx context.Context, q historyQuery) error {
	p.last, p.left, p.bytes = q.place, q.limit, pageBytes
	limit := p.limit()
	msgs, err := p.reader.after(ctx, p.last, limit)
	if errors.Is(err, ErrGone) {
		p.gap, err = true, nil
	}
	if err != nil {
		return err
	}
	return p.take(ctx, msgs, limit)
}

// limit is what the next step may have.
func (p *historyPage) limit() Limit {
	limit := Limit{Count: min(p.left, readCount), Bytes: readBytes}
	if !p.backward {
		limit.Bytes = min(p.bytes, readBytes)
	}
	return limit
}

// next reads the next step, which may turn out to be empty. What was read before is
// sent.
func (p *historyPage) next(ctx context.Context) error {
	limit := p.limit()
	msgs, err := p.reader.after(ctx, p.last, limit)
	switch gone := errors.Is(err, ErrGone); {
	case err != nil && !gone:
		return err
	case p.backward && (gone || len(msgs) == 0):
		return fmt.Errorf("%w: what follows %s", errDropped, FormatID(p.reader.channel, p.last))
	case gone || len(msgs) == 0: // the page ends before a hole, or where the channel does
		p.step, p.complete, p.more = nil, true, gone
		return nil
	}
	return p.take(ctx, msgs, limit)
}

// take makes messages that were read within a limit the step, and finds out whether it
// is the last one.
func (p *historyPage) take(ctx context.Context, msgs []Message, limit Limit) error {
	msgs = msgs[:min(len(msgs), p.left)]
	bytes := contentBytes(msgs)
	p.step = msgs
	p.left -= len(msgs)
	p.bytes -= bytes
	if len(msgs) > 0 {
		p.last = msgs[len(msgs)-1].Position
	}
	full := p.left == 0 || p.bytes <= 0 && !p.backward
	switch {
	case p.backward:
		p.complete = p.left == 0
		return nil
	case len(msgs) == 0:
		p.complete = true // nothing is kept
		return nil
	case !full && !limit.isShort(len(msgs), bytes):
		return nil
	}
	// They may end here, or before a hole: the next page says so then.
	last, err := p.reader.last(ctx)
	if err != nil {
		return err
	}
	p.more = last != p.last
	p.complete = full || !p.more
	return nil
}

// openBackward finds out which messages the page before a place has, and reads the
// first step of it.
func (p *historyPage) openBackward(ctx context.Context, q historyQuery) error {
	for tries := 3; ; tries-- {
		*p = historyPage{reader: p.reader, backward: true}
		run, err := p.findRun(ctx, q)
		if err != nil {
			return err
		}
		p.last, p.left = Position{Epoch: run.epoch, Seq: run.first - 1}, len(run.sizes)
		switch {
		case p.left == 0:
			p.complete = true
			return nil
		case run.messages != nil:
			return p.take(ctx, run.messages, p.limit())
		}
		// The oldest may have been dropped since it was looked at.
		if err := p.next(ctx); !errors.Is(err, errDropped) || tries == 1 {
			return err
		}
	}
}

// findRun is the messages of the page before a place. It says what the page's end has
// to say, too.
func (p *historyPage) findRun(ctx context.Context, q historyQuery) (run messageRun, err error) {
	end := q.place // of the message behind the page
	if end == (Position{}) {
		last, err := p.reader.last(ctx)
		if err != nil {
			return run, err
		}
		end = Position{Epoch: last.Epoch, Seq: last.Seq + 1}
	}
	if end.Seq <= 1 {
		return run, nil // nothing was ever before it
	}
	run, newest, more, err := p.reader.runBefore(ctx, end, q.limit)
	if err != nil {
		return run, err
	}
	if len(run.sizes) == 0 {
		p.gap = true
		run, more, err = p.reader.runBeforeHole(ctx, end, newest, q.limit)
		if err != nil || len(run.sizes) == 0 {
			return run, err
		}
	}
	p.more = more
	if !p.more && run.first > 1 {
		oldest, err := p.reader.keptAfter(ctx, Position{Epoch: run.epoch})
		if err != nil {
			return run, err
		}
		p.more = oldest.Epoch == run.epoch && oldest.Seq < run.first
		if !p.more && run.messages == nil {
			// These are the next to be dropped: only what is kept until then is sent.
			p.more = true
			return p.reader.newestOf(ctx, run)
		}
		p.gap = true
	}
	return run, nil
}
