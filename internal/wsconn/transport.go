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
	// readBuffer serves frame headers and small messages; longer ones are read
	// past it.
	readBuffer = 512
	// writeBuffer holds any control frame whole: a header of 2, a payload of 125.
	writeBuffer = 256
	// extraRate and extraBurst bound the frames that a peer sends beyond one a
	// message, in frames a second: control frames, and fragments that others follow.
	// They cost as much as messages, and nobody else counts them.
	extraRate  = 1000
	extraBurst = 2000
)

// errFlood is what reading ends with when a peer sends too many frames.
var errFlood = errors.New("wsconn: peer sends too many frames")

var (
	// anyHandshake stands for the one that was answered long ago.
	anyHandshake = &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/"},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		},
	}
	anyOrigin = &websocket.AcceptOptions{InsecureSkipVerify: true} // it was checked before
)

// transport is a connection as nhooyr's Conn sees it for one spell of reading,
// and the ResponseWriter that this Conn is accepted on.
type transport struct {
	net.Conn
	c       *Conn
	frames  frames
	began   bool          // something was read
	wait    time.Duration // for the next message, before there is nothing to read
	until   time.Time     // the deadline of reading that next has set
	tooLong *time.Timer   // running while a message is waited for that has begun
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

// release gives t back when neither nhooyr's Conn nor anybody else uses it.
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

// Hijack gives nhooyr this transport, with buffers of the right size.
func (t *transport) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t, bufio.NewReadWriter(t.br, t.bw), nil
}

// Write gets nhooyr's own frames: pongs and close frames, each in one call. It
// echoes a close frame whose reason is not UTF-8, which no endpoint may send
// (RFC 6455, sections 5.5.1 and 8.1).
func (t *transport) Write(p []byte) (int, error) {
	if wsframe.IsClose(p) && !wsframe.ValidClose(p) {
		t.c.out.Close(codeNotUTF8, "not UTF-8")
	} else {
		t.c.out.SendFirst(bytes.Clone(p))
	}
	return len(p), nil
}

// Close is not nhooyr's to do: the outbox may have more to send.
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
		// No WebSocket ends without a close frame, and nhooyr would take an EOF
		// between two fragments for the end of their message.
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// affords pays for the frames that were beyond one a message.
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

// next reads the beginning of a message, or finds that there is nothing to read.
func (t *transport) next(p []byte) (n int, err error) {
	wait := t.wait
	if wait == 0 {
		if n, err, ok := readNow(t.c, p); ok {
			return n, err
		}
		// A TLS connection. Something woke it, so a record is coming; after that
		// only those are read that it holds already.
		if !t.began {
			wait = talkTime
		}
	}
	t.began = true
	// One that talks has its deadline moved once in a while, not for each message.
	if now := time.Now(); wait == 0 || t.until.Sub(now) < wait {
		t.deadline(now.Add(2 * wait))
	}
	n, err = t.Conn.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, errNothing
	}
	return n, err
}

// deadline sets that of reading, zero for none, unless it is the peer's answer to
// a close frame that is waited for.
func (t *transport) deadline(at time.Time) {
	t.until = at
	_ = t.SetReadDeadline(at)
	t.c.out.Await()
}

// talks is told of each message that was handled.
func (t *transport) talks() {
	now := time.Now().UnixNano()
	t.wait = 0
	if time.Duration(now-t.c.last) <= talkTime {
		t.wait = talkTime
	}
	t.c.last = now
}

// ended is told when a message has ended: the next has a time of its own.
func (t *transport) ended() {
	if t.tooLong != nil {
		t.tooLong.Stop()
		t.tooLong = nil
	}
}

// frames follows a stream of frames (RFC 6455, section 5.2) as far as to know
// where messages end. What is wrong with them is for nhooyr to find.
type frames struct {
	head [14]byte
	have int    // bytes of head
	left uint64 // of the payload
	open bool   // a message's last fragment is still to come

	extra int // frames that ended no message, to be counted off
}

// between reports whether the stream stands between two messages.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.open }

// pass goes over the next bytes of the stream and reports whether it came between
// two messages on the way.
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

// payload is the length that a whole head announces.
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
