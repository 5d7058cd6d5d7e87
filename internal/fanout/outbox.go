package fanout

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/wire"
)

const (
	// chunk is how much of a backlog is written at once, and so how much must
	// get through within a stall's time.
	chunk = 64 << 10
	// lowMark is the backlog below which a paced sender goes on.
	lowMark = 32 << 10
)

// ErrClosed is what a paced send to an outbox answers that is closing or dead.
var ErrClosed = errors.New("fanout: outbox closed")

// Limits bound what an outbox does for a peer that does not read.
type Limits struct {
	Backlog int           // bytes that may wait
	Stall   time.Duration // how long 64 KiB of it may take
	Closing time.Duration // how long the close frame and the peer's answer may take
	Slow    []byte        // the close frame for a peer past its limit
}

// Totals are what a set of outboxes has in common to count.
type Totals struct {
	Backlog atomic.Int64  // bytes waiting now
	Slow    atomic.Uint64 // peers given up because of their backlog
}

// Owner is whom an outbox tells of its connection's end.
type Owner interface {
	// Ending is called when the close frame is written, and again when the
	// connection is closed, under the outbox's lock: it must not block, nor use
	// the outbox.
	Ending()
}

// Outbox is the writing side of one socket. Whole frames go in, in any
// goroutine; they come out in that order, none interleaved with another, and
// nothing after a close frame. Only Pace may block.
//
// Where the kernel takes bytes without blocking they are written at once by the
// caller. What it does not take waits, by reference, for a goroutine that lives
// only while there is a backlog.
type Outbox struct {
	conn   net.Conn  // nil until Attach, guarded by mu till then
	owner  Owner     // or nil
	now    immediate // what can be written without waiting
	limits *Limits
	totals *Totals

	mu       sync.Mutex // guards what follows; held over non-blocking writes only
	first    []byte     // goes with what is pushed first
	queue    [][]byte   // to be written, oldest first
	held     [][]byte   // what came while corked: after queue
	bytes    int        // in queue, held, reserved and in the drainer's hands
	ahead    int        // of these, in queue and in the drainer's hands
	paced    int        // of these, what Pace brought: no part of the backlog's limit
	begun    bool       // the peer has got the beginning of queue[0]
	corked   bool
	draining bool // a drainer is at work: nobody else writes
	moved    bool // the drainer has written something since Moving was called
	closing  bool // a close frame is queued: nothing follows
	dead     bool
	room     chan struct{} // not nil while Pace waits; closed when ahead falls below lowMark
	idle     chan struct{} // not nil while somebody waits; closed when ahead falls to 0
}

// NewOutbox makes the outbox of conn, corked: it keeps what it receives until
// Uncork. The owner may be nil.
func NewOutbox(conn net.Conn, owner Owner, limits *Limits, totals *Totals) *Outbox {
	return &Outbox{conn: conn, owner: owner, now: immediately(conn), limits: limits, totals: totals, corked: true}
}

// Detached makes an outbox whose connection comes later, by Attach. Until then what is
// written waits.
func Detached(owner Owner, limits *Limits, totals *Totals) *Outbox {
	return &Outbox{owner: owner, limits: limits, totals: totals, corked: true}
}

// Attach gives a detached outbox its connection. It is called once.
func (o *Outbox) Attach(conn net.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conn, o.now = conn, immediately(conn)
	switch {
	case o.dead:
		_ = transport(conn).Close()
	case len(o.queue) > 0:
		o.draining = true
		go o.drain()
	}
}

// First keeps bytes to be written with what comes first, in one piece, or when
// Uncork finds nothing else. It is called before anything is sent.
func (o *Outbox) First(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.first = b
}

// Fresh reports whether what First keeps is still to be sent, or the outbox detached.
func (o *Outbox) Fresh() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.first) > 0 || o.conn == nil
}

// Instead sends b in place of what First keeps, and nothing after it, as after a close
// frame. It reports false when the peer has got that already, or nothing is sent any
// more.
func (o *Outbox) Instead(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.first) == 0 || o.closing || o.dead {
		return false
	}
	o.first = nil
	o.shut()
	o.push(b)
	return true
}

// Send queues whole frames. The bytes must not change afterwards.
func (o *Outbox) Send(frames []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return
	}
	if !o.corked {
		o.push(frames)
		return
	}
	o.held = append(o.held, frames)
	o.count(len(frames))
	if o.tooMuch() {
		o.giveUp()
	}
}

// Ahead queues one frame before what is held by a cork. When it is a close frame,
// what is held is not sent any more: what comes before it may not be complete.
func (o *Outbox) Ahead(frame []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return
	}
	if wire.IsClose(frame) {
		o.shut()
	}
	o.push(frame)
}

// shut begins the closing: nothing follows what is pushed next, and what a cork
// holds is not sent any more. A write that waits for the peer since before has as long
// as one that begins now, not the time of a stall. Requires o.mu.
func (o *Outbox) shut() {
	o.closing = true
	o.dropHeld()
	if o.draining {
		_ = o.conn.SetWriteDeadline(time.Now().Add(o.limits.Closing))
	}
	if o.room != nil {
		close(o.room) // Pace sends nothing any more
		o.room = nil
	}
}

// Close queues the close frame. What a cork holds is not sent any more.
func (o *Outbox) Close(code int, reason string) { o.Ahead(wire.CloseFrame(code, reason)) }

// Cork holds back what Send is given from now on.
func (o *Outbox) Cork() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.corked = true
}

// Pace sends frames before what is held by the cork, and returns when little of
// what is ahead of it still waits: as fast as the peer reads. What it is given is
// bounded by its caller and does not count towards the limit of the backlog.
func (o *Outbox) Pace(frames []byte) error {
	o.mu.Lock()
	if o.closing || o.dead {
		o.mu.Unlock()
		return ErrClosed
	}
	o.paced += len(frames)
	o.push(frames)
	o.paced = min(o.paced, o.ahead)
	for o.ahead >= lowMark && !o.closing && !o.dead {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		<-room
		o.mu.Lock()
	}
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return ErrClosed
	}
	return nil
}

// Uncork sends what was held.
func (o *Outbox) Uncork() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.uncork()
}

func (o *Outbox) uncork() {
	o.corked = false
	for len(o.held) > 0 && !o.closing && !o.dead {
		b := o.held[0]
		o.held = o.held[1:]
		o.count(-len(b))
		o.push(b)
	}
	o.held = nil
	if len(o.first) > 0 && !o.closing && !o.dead {
		o.push(nil)
	}
}

// Reserve counts n bytes that the caller keeps for the peer towards the limit of
// the backlog, until Release. It reports false, and counts nothing, when the outbox
// takes nothing any more or gives up on the peer now: what is kept is not sent then.
func (o *Outbox) Reserve(n int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return false
	}
	o.count(n)
	if o.tooMuch() {
		o.count(-n)
		o.giveUp()
		return false
	}
	return true
}

// Release undoes a Reserve of n bytes.
func (o *Outbox) Release(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count(-n)
}

// Moving reports whether the peer has a backlog and took some of it since the
// last call: a sign of life.
func (o *Outbox) Moving() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	moving := o.moved && o.ahead > 0
	o.moved = false
	return moving
}

// Idle returns a channel that is closed when all but what a cork holds is written,
// or the outbox is dead.
func (o *Outbox) Idle() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	idle := o.idle
	if idle == nil {
		idle = make(chan struct{})
		if o.ahead == 0 {
			close(idle)
		} else {
			o.idle = idle
		}
	}
	return idle
}

// Closing reports whether a close frame was queued or the connection is dead.
func (o *Outbox) Closing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing || o.dead
}

// Kill closes the connection at once and drops what waits. It is the owner's
// last call and may be repeated.
func (o *Outbox) Kill() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.die()
}

// push writes b, or queues what of it the kernel does not take now.
func (o *Outbox) push(b []byte) {
	if len(o.first) > 0 {
		b = append(o.first, b...)
		o.first, o.begun = nil, true // nothing makes sense to the peer without it
	}
	if !o.draining && o.now.can() {
		n, err := o.now.write(o.conn, b)
		if err != nil {
			o.die()
			return
		}
		if n == len(b) {
			o.begun = false
			o.written()
			return
		}
		o.begun = o.begun || n > 0
		b = b[n:]
	}
	o.queue = append(o.queue, b)
	o.count(len(b))
	o.ahead += len(b)
	if !o.draining && o.conn != nil {
		o.draining = true
		go o.drain()
	}
	if o.tooMuch() && !o.closing {
		o.giveUp()
	}
}

// tooMuch reports whether more waits than may: a peer that only pings, and reads
// none of the pongs, costs more than their bytes.
func (o *Outbox) tooMuch() bool {
	const entry = 64 // what a small frame takes in memory beside its bytes
	return o.bytes-o.paced+entry*(len(o.queue)+len(o.held)) > o.limits.Backlog
}

// giveUp drops the backlog of a peer past its limit and says good-bye instead.
// What the peer has got the beginning of goes before that.
func (o *Outbox) giveUp() {
	o.totals.Slow.Add(1)
	keep := 0
	if o.begun {
		keep = 1
	}
	for _, b := range o.queue[keep:] {
		o.done(len(b))
	}
	clear(o.queue[keep:])
	o.queue = o.queue[:keep]
	o.shut()
	o.push(o.limits.Slow)
}

// done takes n bytes off what is ahead.
func (o *Outbox) done(n int) {
	o.count(-n)
	o.ahead -= n
	o.paced = min(o.paced, o.ahead)
	if o.ahead < lowMark && o.room != nil {
		close(o.room)
		o.room = nil
	}
}

func (o *Outbox) dropHeld() {
	for _, b := range o.held {
		o.count(-len(b))
	}
	o.held = nil
}

func (o *Outbox) count(n int) {
	o.bytes += n
	o.totals.Backlog.Add(int64(n))
}

// written is called whenever nothing is left to be written.
func (o *Outbox) written() {
	if o.closing {
		// The peer has this long to answer the close frame.
		_ = o.conn.SetReadDeadline(time.Now().Add(o.limits.Closing))
		o.ending()
	}
	o.rest()
}

func (o *Outbox) ending() {
	if o.owner != nil {
		o.owner.Ending()
	}
}

// Await sets the deadline of reading for the peer's answer, if the close frame is
// written: for a reader that had set another. Until it is written the peer has
// nothing to answer.
func (o *Outbox) Await() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing && !o.dead && o.ahead == 0 {
		_ = o.conn.SetReadDeadline(time.Now().Add(o.limits.Closing))
	}
}

// rest wakes who waits for the outbox to be idle.
func (o *Outbox) rest() {
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

func (o *Outbox) die() {
	if o.dead {
		return
	}
	o.dead = true
	o.dropHeld()
	o.queue = nil
	o.done(o.ahead)
	if o.conn != nil {
		_ = transport(o.conn).Close()
	}
	o.ending()
	o.rest()
}

// transport is what can be closed without waiting: closing a TLS connection
// writes a last record first, and may wait five seconds for a peer that does not
// read. Who wants that record sent calls CloseWrite before.
func transport(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		return t.NetConn()
	}
	return conn
}

// drain writes the queue until it is empty. It ends with the outbox.
func (o *Outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.dead && len(o.queue) > 0 {
		taken, n := o.take()
		patience := o.limits.Stall
		if o.closing {
			patience = o.limits.Closing
		}
		// With the lock: shut may set an earlier one from here on.
		_ = o.conn.SetWriteDeadline(time.Now().Add(patience))
		o.mu.Unlock()
		_, err := taken.WriteTo(o.conn)
		o.mu.Lock()
		if o.dead {
			break
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !o.closing {
				o.totals.Slow.Add(1)
			}
			o.die()
			break
		}
		o.moved = true
		o.done(n)
	}
	o.draining = false
	if !o.dead {
		o.queue = nil
		_ = o.conn.SetWriteDeadline(time.Time{}) // what goes at once has none
		o.written()
	}
}

// take moves up to a chunk from the queue's head into the drainer's hands.
func (o *Outbox) take() (taken net.Buffers, n int) {
	if first := o.queue[0]; len(first) > chunk {
		o.queue[0] = first[chunk:]
		o.begun = true
		return net.Buffers{first[:chunk]}, chunk
	}
	o.begun = false
	for len(o.queue) > 0 && n+len(o.queue[0]) <= chunk {
		taken = append(taken, o.queue[0])
		n += len(o.queue[0])
		o.queue[0] = nil
		o.queue = o.queue[1:]
	}
	return taken, n
}
