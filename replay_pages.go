package chat

import (
	"container/list"
	"context"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/sharedread"
)

// replayLimit bounds one read of missed messages, and so a replayPage.
var replayLimit = Limit{Count: 100, Bytes: readBytes}

const (
	// pageTime is how long a page is kept after its read began: about as long as the clients
	// of a failed node need to reconnect.
	pageTime = 5 * time.Second
	// pagesBytes bounds the memory of all kept pages of a service.
	pagesBytes = 16 << 20
	// pageOverhead is about how many bytes a kept page takes besides its frames and marks.
	pageOverhead = 512
)

// replayPage is messages of a channel, encoded once for all sockets that missed them. Only
// charged ever changes.
type replayPage struct {
	after   Position // the messages follow this position, without a gap
	last    Position // of the newest message; after if there is none
	frames  []byte   // a whole WebSocket frame for each message
	marks   []frameMark
	content int         // bytes of content that were read
	short   bool        // nothing may follow the page, see Limit.isShort
	charged atomic.Bool // a user has been charged for the read
}

// frameMark is where the frame of a message ends in the frames of a page.
type frameMark struct {
	seq uint64 // of the message
	end int
}

// newReplayPage encodes messages that were read after a position within replayLimit.
func newReplayPage(after Position, msgs []Message) *replayPage {
	p := &replayPage{after: after, last: after, content: contentBytes(msgs)}
	p.short = replayLimit.isShort(len(msgs), p.content)
	if len(msgs) == 0 {
		return p
	}
	p.last = msgs[len(msgs)-1].Position
	p.marks = make([]frameMark, len(msgs))
	encoded := make([][]byte, len(msgs))
	end := 0
	for i, m := range msgs {
		encoded[i] = encodeMessage(&m)
		end += len(encoded[i])
		p.marks[i] = frameMark{m.Position.Seq, end}
	}
	p.frames = slices.Concat(encoded...)
	return p
}

// follows reports whether the page has the messages right after a position. For the page's
// own position it may have none. It never reports so for the page's last message: other
// messages may follow that by now.
func (p *replayPage) follows(at Position) bool {
	return at == p.after ||
		at.Epoch == p.after.Epoch && at.Epoch == p.last.Epoch && p.after.Seq < at.Seq && at.Seq < p.last.Seq
}

// hasAfter reports whether the page has messages after a position that it follows.
func (p *replayPage) hasAfter(at Position) bool { return p.last != at }

// between returns the frames of the messages after a position that the page follows, up to
// last (nil: all). begin is where the first one begins in p.frames.
func (p *replayPage) between(from Position, last *Position) (begin int, marks []frameMark) {
	marks = p.marks
	if from != p.after {
		i := sort.Search(len(marks), func(i int) bool { return marks[i].seq > from.Seq })
		begin, marks = marks[i-1].end, marks[i:] // i > 0: the first message is right after p.after
	}
	if last != nil {
		marks = marks[:sort.Search(len(marks), func(i int) bool { return marks[i].seq > last.Seq })]
	}
	return begin, marks
}

// size is about how many bytes a kept page takes in memory.
func (p *replayPage) size() int { return pageOverhead + len(p.frames) + 16*len(p.marks) }

// replayPages reads missed messages for sockets that resume. Sockets that missed the same
// messages share a read and its encoding: after a restart they all resume at about the same
// time. Pages are kept for pageTime, up to pagesBytes, and those of user channels not at all,
// because few sockets could share them.
//
// A kept page may be too old to say that nothing follows it. So a replay ends at the position
// that the registry names when the socket joins.
type replayPages struct {
	history  History
	inMemory bool // reading several channels at the same time is not faster
	reads    *sharedread.Group[historyRead, *replayPage]

	mu     sync.Mutex // guards the fields below; not held while reading
	runs   map[pageRun][]*list.Element
	used   list.List   // of *keptPage: all, most recently used first
	bytes  int         // of all
	sweep  *time.Timer // calls expire; nil: no page is kept
	closed bool
}

// historyRead is the arguments of a shared read.
type historyRead struct {
	channel string
	after   Position
	limit   Limit // replayLimit, or one message to check that it is kept
	more    bool  // messages are known to follow
}

// pageRun is what the pages that replayPages finds together have in common. Their order in
// runs is that of after.
type pageRun struct{ channel, epoch string }

type keptPage struct {
	*replayPage
	run   pageRun
	until time.Time
}

func newReplayPages(h History) *replayPages {
	p := &replayPages{history: h, runs: make(map[pageRun][]*list.Element)}
	_, p.inMemory = h.(*MemoryHistory)
	p.reads = sharedread.New(portTimeout, p.readOnce)
	return p
}

// after returns the page that follows a position, with an error like that of History.After.
// The page may have been read some seconds ago, and then it may not be the newest that
// follows. If more is true, messages are known to follow, and an old page without messages
// will not do. An error is never old.
//
// cost is how many bytes to charge the user for, also after an error.
func (p *replayPages) after(ctx context.Context, channel string, at Position, more bool) (page *replayPage, cost int, err error) {
	page, err = p.get(ctx, historyRead{channel, at, replayLimit, more})
	return page, page.cost(), err
}

// check returns [ErrGone] if the messages after a position are not kept. A page of the last
// seconds is enough for that: if they are dropped meanwhile, the next read of the replay
// notices.
func (p *replayPages) check(ctx context.Context, channel string, at Position) (cost int, err error) {
	page, err := p.get(ctx, historyRead{channel, at, Limit{Count: 1}, false})
	return page.cost(), err
}

// get returns a kept page or reads one.
func (p *replayPages) get(ctx context.Context, r historyRead) (*replayPage, error) {
	if ofUser(r.channel) {
		return p.read(ctx, r)
	}
	if page := p.find(r); page != nil {
		return page, nil
	}
	return p.reads.Do(ctx, r)
}

// readOnce is read for several sockets that share it. Those that arrived during a read wait
// for the next one, but need none if the page of the first is kept.
func (p *replayPages) readOnce(ctx context.Context, r historyRead) (*replayPage, error) {
	if page := p.find(r); page != nil {
		return page, nil
	}
	return p.read(ctx, r)
}

// read reads the history, and keeps a whole page.
func (p *replayPages) read(ctx context.Context, r historyRead) (*replayPage, error) {
	until := time.Now().Add(pageTime)
	msgs, err := p.history.After(ctx, r.channel, r.after, r.limit)
	if err != nil || r.limit != replayLimit { // messages that come with an error are not sent
		return &replayPage{after: r.after, last: r.after, content: contentBytes(msgs)}, err
	}
	page := newReplayPage(clonePosition(r.after), msgs)
	p.keep(r.channel, page, until)
	return page, nil
}

// ofUser reports whether a channel is a user channel.
func ofUser(channel string) bool { return strings.HasPrefix(channel, "@") }

// cost returns how many bytes to charge a user for a page: those that were read, or less if
// another user was charged for these. p may be nil: the caller gave up.
func (p *replayPage) cost() int {
	switch {
	case p == nil:
		return readCost
	case p.charged.CompareAndSwap(false, true):
		return max(p.content, readCost)
	}
	return readCost + len(p.frames)/8
}

// find returns a kept page that answers a read, nil for none.
func (p *replayPages) find(r historyRead) *replayPage {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	run := p.runs[pageRun{r.channel, r.after.Epoch}]
	i := sort.Search(len(run), func(i int) bool { return kept(run[i]).after.Seq > r.after.Seq })
	if i == 0 {
		return nil
	}
	page := kept(run[i-1])
	if !page.follows(r.after) || r.more && !page.hasAfter(r.after) || !now.Before(page.until) {
		return nil
	}
	p.used.MoveToFront(run[i-1])
	return page.replayPage
}

// keep keeps a page until a time, instead of an older one after the same position.
func (p *replayPages) keep(channel string, page *replayPage, until time.Time) {
	if page.last.Epoch != page.after.Epoch || ofUser(channel) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	// channel may be a part of a request, which a clone does not keep in memory.
	of := pageRun{strings.Clone(channel), page.after.Epoch}
	run := p.runs[of]
	i := sort.Search(len(run), func(i int) bool { return kept(run[i]).after.Seq >= page.after.Seq })
	if i < len(run) && kept(run[i]).after == page.after {
		p.drop(run[i])
		run = p.runs[of]
	}
	e := p.used.PushFront(&keptPage{page, of, until})
	p.runs[of] = slices.Insert(run, i, e)
	p.bytes += page.size()
	for p.bytes > pagesBytes {
		p.drop(p.used.Back())
	}
	if p.sweep == nil {
		p.sweep = time.AfterFunc(pageTime, p.expire)
	}
}

// expire drops the pages whose time is over.
func (p *replayPages) expire() {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.sweep = nil
	next := now.Add(pageTime)
	for e := p.used.Front(); e != nil; {
		page, at := kept(e), e
		e = e.Next()
		if !now.Before(page.until) {
			p.drop(at)
		} else if page.until.Before(next) {
			next = page.until
		}
	}
	if p.used.Len() > 0 {
		// Not at once for each page: a sweep looks at all.
		p.sweep = time.AfterFunc(max(next.Sub(now), pageTime/10), p.expire)
	}
}

// forget drops the pages of a channel and an epoch, because messages after them are no longer
// kept. Otherwise clients would be closed with [CloseTooSlow] after each of them, until their
// time is over, and not learn by their welcome that messages are missing.
func (p *replayPages) forget(channel, epoch string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for run := (pageRun{channel, epoch}); len(p.runs[run]) > 0; {
		p.drop(p.runs[run][0])
	}
}

// close drops all pages and stops the timer. Reads after it keep nothing.
func (p *replayPages) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for p.used.Len() > 0 {
		p.drop(p.used.Back())
	}
	if p.sweep != nil {
		p.sweep.Stop()
		p.sweep = nil
	}
}

// size returns about how many bytes the kept pages take.
func (p *replayPages) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}

// drop requires p.mu.
func (p *replayPages) drop(e *list.Element) {
	page := kept(e)
	p.used.Remove(e)
	p.bytes -= page.size()
	run := p.runs[page.run]
	i := sort.Search(len(run), func(i int) bool { return kept(run[i]).after.Seq >= page.after.Seq })
	if run = slices.Delete(run, i, i+1); len(run) > 0 {
		p.runs[page.run] = run
	} else {
		delete(p.runs, page.run)
	}
}

func kept(e *list.Element) *keptPage { return e.Value.(*keptPage) }
