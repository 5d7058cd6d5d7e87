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
	// defaultPage is how many messages a page of GET /messages has by default, and maxPage
	// the largest ?limit=. A page ends early after pageBytes of content.
	defaultPage = 100
	maxPage     = 1000
	pageBytes   = 1 << 20
)

const (
	// readCount and readBytes bound one read of the history, see [Limit].
	readCount = 128
	readBytes = 64 << 10

	// readTurns is how many fast reads for pages run at once; one user has at most one. The
	// number is small because publishing waits for reads that a backend has begun; each
	// takes about a millisecond. A read that exceeds slowRead gives its turn to another,
	// because it probably waits for something of its own, such as a locked row.
	readTurns = 4
	slowRead  = 250 * time.Millisecond
	// readsInAll is how many reads for pages run at once, including slow ones and those that
	// wait for one of the readTurns. For join commands the number is [WithOpening], as for
	// sockets that resume.
	readsInAll = 64
	// readsOfUser is how many reads for pages one user has at once, and how many for join
	// commands.
	readsOfUser = 2
	// readsWaiting is how many further reads for pages wait, of one user as many as it may
	// have pages. readsWait is how long a read waits: less than portTimeout, which leaves
	// time for the read itself.
	readsWaiting = 1024
	readsWait    = 3 * time.Second
)

const (
	// userReadRate is how many bytes of content are read for a user per second, after
	// userReadBurst, for all pages and sockets of the user together. Further reads wait.
	// The values are for defaultSocketsPerUser, see newUserReads.
	userReadRate  = 8 << 20
	userReadBurst = 1 << 20
	// readRate and readBurst are the same for the pages of all users together: reading,
	// encoding and sending more would leave too little of a small machine for publishing.
	readRate  = 128 << 20
	readBurst = 8 << 20
	// readCost is the least that a read counts as, in bytes: one that finds nothing loads a
	// backend too.
	readCost = 4 << 10
)

// errReading: a read of the history waited too long for its turn, or too many reads wait.
var errReading = errors.New("too many reads of the history")

// newReads returns a gate for reads: inAll at once, and readsOfUser of one user.
func newReads(inAll, waiting, waitingOf int) *admission.Gate {
	return admission.New(admission.Limits{
		Inside: inAll, InsideOf: readsOfUser,
		Waiting: waiting, WaitingOf: waitingOf, Wait: readsWait,
	}, nil)
}

// newUserReads returns the read limit by user. It grows with the sockets that a user may
// have, as [WithConnectRate] does: all of them may have missed messages at the same time.
func newUserReads(sockets int) *throttle.Meter {
	per := func(n int) int { return max(n, sockets*(n/defaultSocketsPerUser)) }
	return throttle.NewMeter(per(userReadRate), per(userReadBurst))
}

// newReadTurns returns a gate without a waiting time: each turn ends after slowRead at the
// latest.
func newReadTurns() *admission.Gate {
	return admission.New(admission.Limits{
		Inside: readTurns, InsideOf: 1,
		Waiting: readsInAll, WaitingOf: readsOfUser,
	}, nil)
}

// historyQuery asks for the messages after a position (zero: the oldest), or, if backward,
// for those before it (zero: the newest).
type historyQuery struct {
	channel  string
	position Position
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
		of, position, err := ParseID(id)
		if err != nil {
			return q, err
		}
		if values.Has("channel") && of != q.channel {
			return q, wrapf(ErrInvalid, "%s is an id of another channel", name)
		}
		q.channel, q.position = of, position
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

// historyReader reads a channel for a page of a user. Each read waits for the user's turn.
type historyReader struct {
	service *Service
	user    string
	channel string
}

// inTurn waits for the user's turn at the gate, then calls read.
func (s *Service) inTurn(ctx context.Context, turns *admission.Gate, user string, read func(context.Context) error) error {
	if err := turns.Enter(ctx, user); err != nil {
		return errors.Join(errReading, err)
	}
	defer turns.Leave(user)
	return s.readHistory(ctx, read)
}

// inPageTurn is inTurn for a page. Its fast turn ends when read returns, but after slowRead
// at the latest.
func (s *Service) inPageTurn(ctx context.Context, user string, read func(context.Context) error) error {
	if err := s.pageReads.Enter(ctx, user); err != nil {
		return errors.Join(errReading, err)
	}
	defer s.pageReads.Leave(user)
	if err := s.fastPageReads.Enter(ctx, user); err != nil {
		return errors.Join(errReading, err)
	}
	leave := sync.OnceFunc(func() { s.fastPageReads.Leave(user) })
	defer leave()
	defer time.AfterFunc(slowRead, leave).Stop()
	return s.readHistory(ctx, read)
}

// readHistory calls read with a context of portTimeout.
func (s *Service) readHistory(ctx context.Context, read func(context.Context) error) error {
	ctx, cancel := lazyctx.WithTimeout(ctx, portTimeout)
	defer cancel()
	err := read(ctx)
	s.counts.failed(portHistory, err)
	return err
}

// after reads like History.After, within the read limits and in the user's turn.
func (r historyReader) after(ctx context.Context, p Position, limit Limit) (msgs []Message, err error) {
	err = r.read(ctx, func(ctx context.Context) (bytes int, err error) {
		msgs, err = r.service.cfg.history.After(ctx, r.channel, p, limit)
		return contentBytes(msgs), err
	})
	return msgs, err
}

// last reads like History.Last, within the read limits and in the user's turn.
func (r historyReader) last(ctx context.Context) (p Position, err error) {
	err = r.read(ctx, func(ctx context.Context) (_ int, err error) {
		p, err = r.service.cfg.history.Last(ctx, r.channel)
		return 0, err
	})
	return p, err
}

// read waits for the read limits and for the user's turn, then calls read and charges the
// user for the bytes of content that it returns.
func (r historyReader) read(ctx context.Context, read func(context.Context) (int, error)) error {
	s := r.service
	if delay := max(s.userReads.Delay(r.user), s.allPageReads.Delay("")); delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.inPageTurn(ctx, r.user, func(ctx context.Context) error {
		bytes, err := read(ctx)
		bytes = max(bytes, readCost)
		s.userReads.Use(r.user, bytes)
		s.allPageReads.Use("", bytes)
		return err
	})
}

// keptAfter returns the position of the first kept message after p, the zero Position if
// there is none. If the history does not know p, it returns that of the oldest.
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

// errDropped: the history dropped messages of a page after the page began.
var errDropped = errors.New("the history dropped messages while they were read")

// historyPage is the messages of one answer, oldest first and without a gap between them. It
// is read in steps while it is sent.
type historyPage struct {
	reader historyReader
	step   []Message // read, sent next
	last   Position  // of the last message read
	left   int       // messages that may follow the step
	bytes  int       // of content that may follow the step; not used by a page read backward

	// The messages of a page that is read backward are chosen before the first is sent, so
	// exactly left messages follow.
	backward bool
	complete bool // the step is the last one: more and gap are final
	more     bool // the direction of the query has more messages
	// gap says that messages are no longer kept: right before the page or, for a page read
	// backward, between the page and the position of the query.
	gap bool
}

// openForward reads the first step of the page after a position.
func (p *historyPage) openForward(ctx context.Context, q historyQuery) error {
	p.last, p.left, p.bytes = q.position, q.limit, pageBytes
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

// limit returns the limit of the next step.
func (p *historyPage) limit() Limit {
	limit := Limit{Count: min(p.left, readCount), Bytes: readBytes}
	if !p.backward {
		limit.Bytes = min(p.bytes, readBytes)
	}
	return limit
}

// next reads the next step, which may be empty. The caller has sent the steps before
// it.
func (p *historyPage) next(ctx context.Context) error {
	limit := p.limit()
	msgs, err := p.reader.after(ctx, p.last, limit)
	switch gone := errors.Is(err, ErrGone); {
	case err != nil && !gone:
		return err
	case p.backward && (gone || len(msgs) == 0):
		return fmt.Errorf("%w: after %s", errDropped, FormatID(p.reader.channel, p.last))
	case gone || len(msgs) == 0: // the page ends before a gap or at the end of the channel
		p.step, p.complete, p.more = nil, true, gone
		return nil
	}
	return p.take(ctx, msgs, limit)
}

// take makes messages that were read within limit the step, and sets complete if it is the
// last one.
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
	// The channel may end here or at a gap, which the next page reports.
	last, err := p.reader.last(ctx)
	if err != nil {
		return err
	}
	p.more = last != p.last
	p.complete = full || !p.more
	return nil
}

// openBackward finds the messages of the page before a position, and reads its first step.
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
		// The history may have dropped the oldest since findRun.
		if err := p.next(ctx); !errors.Is(err, errDropped) || tries == 1 {
			return err
		}
	}
}

// findRun returns the messages of the page before a position. It also sets more and gap.
func (p *historyPage) findRun(ctx context.Context, q historyQuery) (run messageRun, err error) {
	end := q.position // of the message after the page
	if end == (Position{}) {
		last, err := p.reader.last(ctx)
		if err != nil {
			return run, err
		}
		end = Position{Epoch: last.Epoch, Seq: last.Seq + 1}
	}
	if end.Seq <= 1 {
		return run, nil // no message was ever before it
	}
	run, newest, more, err := p.reader.runBefore(ctx, end, q.limit)
	if err != nil {
		return run, err
	}
	if len(run.sizes) == 0 {
		p.gap = true
		run, more, err = p.reader.runBeforeGap(ctx, end, newest, q.limit)
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
			// The history drops these messages next: send only those that fit into memory now.
			p.more = true
			return p.reader.newestOf(ctx, run)
		}
		p.gap = true
	}
	return run, nil
}
