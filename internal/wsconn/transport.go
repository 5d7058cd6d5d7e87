//lint:file-ignore SA1019 nhooyr.io/websocket is the owner's choice; the same code lives on as github.com/coder/websocket

package wsconn

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"nhooyr.io/websocket"

	"github.com/reto10/chat/internal/wsframe"
)

const (
	// readBuffer is for frame headers and small messages; longer ones bypass it.
	readBuffer = 512
	// writeBuffer fits any control frame: a header of 2 bytes, a payload of 125.
	writeBuffer = 256
	// extraRate and extraBurst bound, in frames a second, the frames beyond one a
	// message: control frames and all fragments but the last. They cost as much as
	// messages, and are not counted elsewhere.
	extraRate  = 1000
	extraBurst = 2000
)

// errFlood ends reading when a peer sends too many frames.
var errFlood = errors.New("wsconn: peer sends too many frames")

var (
	// anyHandshake is the synthetic handshake that nhooyr accepts.
	anyHandshake = &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/"},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		},
	}
	anyOrigin = &websocket.AcceptOptions{InsecureSkipVerify: true} // checked before Accept
)

// transport is the net.Conn under nhooyr's Conn during one call of Conn.read, and the
// ResponseWriter that nhooyr accepts the synthetic handshake on.
type transport struct {
	net.Conn
	c       *Conn
	frames  frames
	began   bool          // next has been called
	wait    time.Duration // how long next waits for the next message
	until   time.Time     // the read deadline that next has set
	tooLong *time.Timer   // not nil in the middle of a message: bounds its time
	header  http.Header
	br      *bufio.Reader
	bw      *bufio.Writer
}

var transports = sync.Pool{New: func() any {
	return &transport{
		header: make(http.Header),
		br:     bufio.NewReaderSize(nil, readBuffer),
		bw:     bufio.NewWriterSize(nil, writeBuffer),
	}
}}

func newTransport(c *Conn) *transport {
	t := transports.Get().(*transport)
	t.Conn, t.c = c.conn, c
	t.br.Reset(t)
	t.bw.Reset(t)
	return t
}

// release puts t back into the pool. Nobody may use it any more.
func (t *transport) release() {
	t.ended()
	if !t.until.IsZero() {
		t.deadline(time.Time{})
	}
	clear(t.header)
	t.br.Reset(nil)
	t.bw.Reset(nil)
	*t = transport{header: t.header, br: t.br, bw: t.bw}
	transports.Put(t)
}

func (t *transport) Header() http.Header { return t.header }
func (t *transport) WriteHeader(int)     {}

// Hijack returns the transport itself, with small buffers.
func (t *transport) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t, bufio.NewReadWriter(t.br, t.bw), nil
}

// Write sends nhooyr's own frames, pongs and close frames, through the outbox. nhooyr
// writes each in one call. It also echoes a close reason that is not UTF-8, which an
// endpoint must not send (RFC 6455, sections 5.5.1 and 8.1).
func (t *transport) Write(p []byte) (int, error) {
	if wsframe.IsClose(p) && !wsframe.ValidClose(p) {
		t.c.out.Close(codeNotUTF8, "not UTF-8")
	} else {
		t.c.out.SendFirst(bytes.Clone(p))
	}
	return len(p), nil
}

// Close does nothing: the outbox may have more to send, and finish closes.
func (t *transport) Close() error { return nil }

func (t *transport) Read(p []byte) (n int, err error) {
	switch {
	case len(t.c.early) > 0:
		n = copy(p, t.c.early)
		if t.c.early = t.c.early[n:]; len(t.c.early) == 0 {
			t.c.early = nil
		}
	case t.frames.between() && t.c.parks && !t.c.out.Closing():
		n, err = t.next(p)
	default:
		if !t.until.IsZero() {
			t.deadline(time.Time{})
		}
		if !t.frames.between() && t.tooLong == nil {
			t.tooLong = time.AfterFunc(messageTime, t.c.out.Kill)
		}
		n, err = t.Conn.Read(p)
	}
	if n > 0 {
		t.c.heard.Store(true)
		if t.frames.pass(p[:n]) {
			t.ended()
		}
		if !t.affords() {
			t.c.out.Close(t.c.server.TooFast, "frames too fast")
			return 0, errFlood
		}
	}
	if err == io.EOF {
		// A WebSocket ends with a close frame. nhooyr would take an EOF between two
		// fragments for the end of the message.
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// affords takes a token for each frame beyond one a message, and reports whether there
// were enough.
func (t *transport) affords() bool {
	if t.frames.extra == 0 {
		return true
	}
	for now := time.Now(); t.frames.extra > 0; t.frames.extra-- {
		if !t.c.extra.Take(now, extraRate, extraBurst) {
			return false
		}
	}
	return true
}

// next reads the beginning of a message. It returns errNothing if none arrives in time.
func (t *transport) next(p []byte) (n int, err error) {
	wait := t.wait
	if wait == 0 {
		if n, err, ok := readNow(t.c, p); ok {
			return n, err
		}
		// A TLS connection. After a wake-up a record is on its way. After that record
		// only those are read that the tls.Conn has buffered.
		if !t.began {
			wait = talkTime
		}
	}
	t.began = true
	// The deadline moves once in a while, not with each message.
	if now := time.Now(); wait == 0 || t.until.Sub(now) < wait {
		t.deadline(now.Add(2 * wait))
	}
	n, err = t.Conn.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, errNothing
	}
	return n, err
}

// deadline sets the read deadline, zero for none. The deadline for the peer's close
// frame has priority.
func (t *transport) deadline(at time.Time) {
	t.until = at
	_ = t.SetReadDeadline(at)
	t.c.out.Await()
}

// talks notes that a message was handled, and decides how long next waits.
func (t *transport) talks() {
	now := time.Now().UnixNano()
	t.wait = 0
	if time.Duration(now-t.c.last) <= talkTime {
		t.wait = talkTime
	}
	t.c.last = now
}

// ended stops the timer of a message.
func (t *transport) ended() {
	if t.tooLong != nil {
		t.tooLong.Stop()
		t.tooLong = nil
	}
}

// frames parses a stream of frames (RFC 6455, section 5.2) to find where messages end.
// nhooyr finds the errors in it.
type frames struct {
	head [14]byte
	have int    // bytes of head
	left uint64 // of the payload
	open bool   // more fragments of the message follow

	extra int // frames that ended no message and are not paid for yet
}

// between reports whether the stream is between two messages.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.open }

// pass parses the next bytes of the stream and reports whether a message ended in them.
func (f *frames) pass(b []byte) (ended bool) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(b)))
			f.left -= n
			b = b[n:]
			ended = ended || f.between()
			continue
		}
		f.head[f.have] = b[0]
		f.have++
		b = b[1:]
		if length, whole := f.payload(); whole {
			if f.head[0]&0x08 == 0 { // no control frame
				f.open = f.head[0]&0x80 == 0
			}
			if f.head[0]&0x88 != 0x80 {
				f.extra++
			}
			f.have, f.left = 0, length
			ended = ended || f.between()
		}
	}
	return ended
}

// payload returns the length of the payload once the head is complete.
func (f *frames) payload() (length uint64, whole bool) {
	if f.have < 2 {
		return 0, false
	}
	extended := map[byte]int{126: 2, 127: 8}[f.head[1]&0x7F]
	need := 2 + extended
	if f.head[1]&0x80 != 0 {
		need += 4 // the mask
	}
	if f.have < need {
		return 0, false
	}
	if extended == 0 {
		return uint64(f.head[1] & 0x7F), true
	}
	for _, c := range f.head[2 : 2+extended] {
		length = length<<8 | uint64(c)
	}
	return length, true
}
