package wsconn

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/wsframe"
)

const (
	// chunk is how many bytes of a backlog are written at once. Limits.Stall bounds
	// how long each may take.
	chunk = 64 << 10
	// lowMark is the backlog in bytes below which SendPaced returns, or a quarter of the
	// limit if that is less.
	lowMark = 32 << 10
)

// ErrClosed is SendPaced's error when the outbox is closing or dead.
var ErrClosed = errors.New("wsconn: outbox closed")

// Limits bound what an outbox does for a peer that does not read.
type Limits struct {
	Backlog int           // bytes that may wait
	Stall   time.Duration // how long 64 KiB of it may take
	Closing time.Duration // how long the close frame and the peer's answer may take
	Slow    []byte        // the close frame for a peer past its limit
}

// Totals are counted over all outboxes of a Server.
type Totals struct {
	Backlog atomic.Int64  // bytes waiting now
	Slow    atomic.Uint64 // peers given up because of their backlog
}

// Outbox is the writing side of one Conn. Any goroutine may send whole frames. They
// are written in the order in which they were sent, and nothing is written after a
// close frame. Only SendPaced may block.
//
// Where the kernel takes bytes without blocking, the sender writes them at once. The
// rest is queued by reference. A goroutine writes the queue and ends when it is empty.
type Outbox struct {
	owner *Conn     // its connection has these limits and totals, and is woken at the end
	conn  net.Conn  // nil until attach, guarded by mu till then
	now   immediate // writes that do not wait

	mu       sync.Mutex // guards what follows; held over non-blocking writes only
	preamble []byte     // the answer to the handshake, written together with the first frame
	queue    [][]byte   // to be written, oldest first
	held     [][]byte   // sent while corked: written after queue
	bytes    int        // in queue, held, reserved and being written by the drainer
	ahead    int        // of these, in queue and being written by the drainer
	begun    bool       // the beginning of queue[0] is written
	corked   bool
	draining bool // a drainer runs: nobody else writes
	moved    bool // the drainer has written something since the last call of Moving
	closing  bool // a close frame is queued: nothing follows
	dead     bool
	room     chan struct{} // not nil while SendPaced waits; closed when ahead falls below mark
	mark     int
	idle     chan struct{} // not nil while somebody waits for Idle; closed when ahead falls to 0
}

// open makes the outbox of c ready, corked: it keeps what it is sent until Uncork.
// conn may be nil: then all waits for attach. c has its raw before open or attach.
func (o *Outbox) open(c *Conn, conn net.Conn) {
	o.owner, o.corked = c, true
	if conn != nil {
		o.conn, o.now = conn, immediately(conn, c.raw)
	}
}

// attach gives the outbox its connection. It is called once, after open without one.
func (o *Outbox) attach(conn net.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conn, o.now = conn, immediately(conn, o.owner.raw)
	switch {
	case o.dead:
		_ = below(conn).Close()
	case len(o.queue) > 0:
		o.draining = true
		go o.drain()
	}
}

// SetPreamble keeps bytes that are written in one piece with the first frame, or by
// Uncork when nothing was sent. It is called before anything is sent. The outbox owns b.
func (o *Outbox) SetPreamble(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.preamble = b
}

// Unanswered reports whether the preamble still waits, or the connection is missing.
func (o *Outbox) Unanswered() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.preamble) > 0 || o.conn == nil
}

// ReplacePreamble sends b instead of the preamble, and nothing after it, as after a
// close frame. It reports false when the preamble is sent already, or the outbox is
// closing or dead.
func (o *Outbox) ReplacePreamble(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.preamble) == 0 || o.closing || o.dead {
		return false
	}
	o.preamble = nil
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

// SendFirst queues one frame before the frames that the cork holds. A close frame
// drops these: a replay before them may be incomplete.
func (o *Outbox) SendFirst(frame []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return
	}
	if wsframe.IsClose(frame) {
		o.shut()
	}
	o.push(frame)
}

// shut begins the closing: the frame that is pushed next is the last, and the cork's
// frames are dropped. A write under way gets the deadline of a closing from now on,
// not that of a stall. Requires o.mu, like all unexported methods below.
func (o *Outbox) shut() {
	o.closing = true
	o.dropHeld()
	if o.draining {
		_ = o.conn.SetWriteDeadline(time.Now().Add(o.limits().Closing))
	}
	if o.room != nil {
		o.wakePaced() // SendPaced returns ErrClosed
	}
}

// Close queues a close frame and drops the frames that the cork holds.
func (o *Outbox) Close(code int, reason string) { o.SendFirst(wsframe.Close(code, reason)) }

// Cork makes Send hold its frames until Uncork.
func (o *Outbox) Cork() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.corked = true
}

// SendPaced sends frames before those that the cork holds. It returns when less than
// 32 KiB wait, or a quarter of the limit, so that its caller goes as fast as the peer
// reads. First it waits until the frames take no more than half of the limit together
// with what waits, or until nothing waits. So it never closes the outbox itself, but the
// frames leave less of the limit to others.
func (o *Outbox) SendPaced(frames []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	limit := o.limits().Backlog
	if !o.await(max(1, limit/2-len(frames)+1)) {
		return ErrClosed
	}
	o.put(frames)
	if !o.await(min(lowMark, limit/4+1)) {
		return ErrClosed
	}
	return nil
}

// await waits until fewer than n bytes are ahead. It reports false if the outbox is closing
// or dead. It unlocks o.mu while it waits.
func (o *Outbox) await(n int) bool {
	for o.ahead >= n && !o.closing && !o.dead {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mark = max(o.mark, n)
		o.mu.Unlock()
		<-room
		o.mu.Lock()
	}
	return !o.closing && !o.dead
}

// Uncork sends the frames that were held.
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
	if len(o.preamble) > 0 && !o.closing && !o.dead {
		o.push(nil)
	}
}

// Reserve counts n bytes towards the limit of the backlog until Release: the caller
// keeps them for the peer. It reports false and counts nothing when the outbox is
// closing or dead, or closes now because these bytes pass the limit.
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

// Moving reports whether the peer has a backlog and has read some of it since the
// last call: a sign of life.
func (o *Outbox) Moving() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	moving := o.moved && o.ahead > 0
	o.moved = false
	return moving
}

// unanswered is [immediate.unanswered]. A closed connection is not dead: Ended follows.
func (o *Outbox) unanswered(d time.Duration) (dead, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dead {
		return false, true
	}
	return o.now.unanswered(d)
}

// hungUp is [immediate.hungUp], and true for a closed connection.
func (o *Outbox) hungUp() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dead || o.now.hungUp()
}

// Idle returns a channel that is closed when all is written except what the cork
// holds, or the outbox is dead.
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

// Closing reports whether a close frame was queued or the outbox is dead.
func (o *Outbox) Closing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing || o.dead
}

// Kill closes the connection at once and drops what waits. It may be repeated.
func (o *Outbox) Kill() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.die()
}

// push is put for bytes that close the outbox if they pass the limit.
func (o *Outbox) push(b []byte) {
	if o.put(b) && o.tooMuch() && !o.closing {
		o.giveUp()
	}
}

// put writes b. It queues the part that the kernel does not take now, and reports whether
// there is one.
func (o *Outbox) put(b []byte) (queued bool) {
	preamble := len(o.preamble) > 0
	if preamble {
		b = append(o.preamble, b...)
		o.preamble, o.begun = nil, true // the peer cannot read a frame without it
	}
	if !o.draining && o.now.can() {
		n, err := o.now.write(o.conn, b)
		if err != nil {
			o.die()
			return false
		}
		if n == len(b) {
			if preamble {
				recycle(b)
			}
			o.begun = false
			o.written()
			return false
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
	return true
}

// tooMuch reports whether the backlog is past its limit. Each queued frame counts with
// its overhead: a peer that pings and does not read costs more than the pongs' bytes.
func (o *Outbox) tooMuch() bool {
	const entry = 64 // bytes of memory for a small frame in addition to its own
	return o.bytes+entry*(len(o.queue)+len(o.held)) > o.limits().Backlog
}

// giveUp drops the backlog of a peer past its limit and sends the close frame Slow
// instead. A frame whose beginning is written is completed first.
func (o *Outbox) giveUp() {
	o.totals().Slow.Add(1)
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
	o.push(o.limits().Slow)
}

// done notes that n bytes of what is ahead are written or dropped.
func (o *Outbox) done(n int) {
	o.count(-n)
	o.ahead -= n
	if o.room != nil && o.ahead < o.mark {
		o.wakePaced()
	}
}

func (o *Outbox) wakePaced() {
	close(o.room)
	o.room, o.mark = nil, 0
}

func (o *Outbox) dropHeld() {
	for _, b := range o.held {
		o.count(-len(b))
	}
	o.held = nil
}

func (o *Outbox) count(n int) {
	o.bytes += n
	o.totals().Backlog.Add(int64(n))
}

// written is called when the queue has become empty.
func (o *Outbox) written() {
	if o.closing {
		_ = o.conn.SetReadDeadline(time.Now().Add(o.limits().Closing)) // for the peer's answer
		o.owner.wake()
	}
	o.rest()
}

func (o *Outbox) limits() *Limits { return &o.owner.server.Limits }
func (o *Outbox) totals() *Totals { return &o.owner.server.Totals }

// Await sets the deadline of reading for the peer's answer to the close frame, when
// that is written. A reader calls it after it has set another deadline.
func (o *Outbox) Await() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing && !o.dead && o.ahead == 0 {
		_ = o.conn.SetReadDeadline(time.Now().Add(o.limits().Closing))
	}
}

// rest closes Idle's channel.
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
		_ = below(o.conn).Close()
	}
	o.owner.wake()
	o.rest()
}

// below returns the connection under TLS, which Close closes without waiting. Closing
// a tls.Conn writes a last record and may wait five seconds for a peer that does not
// read. Call CloseWrite before Kill to send that record.
func below(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		return t.NetConn()
	}
	return conn
}

// drain writes the queue until it is empty or the outbox dead.
func (o *Outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.dead && len(o.queue) > 0 {
		taken, n := o.take()
		patience := o.limits().Stall
		if o.closing {
			patience = o.limits().Closing
		}
		// Under the lock: shut may set an earlier deadline afterwards.
		_ = o.conn.SetWriteDeadline(time.Now().Add(patience))
		o.mu.Unlock()
		_, err := taken.WriteTo(o.conn)
		o.mu.Lock()
		if o.dead {
			break
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !o.closing {
				o.totals().Slow.Add(1)
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
		_ = o.conn.SetWriteDeadline(time.Time{}) // immediate writes have none
		o.written()
	}
}

// take removes up to a chunk from the head of the queue, for the drainer to write.
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
