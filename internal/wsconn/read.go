//lint:file-ignore SA1019 nhooyr.io/websocket is the owner's choice; the same code lives on as github.com/coder/websocket

package wsconn

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
	"unicode/utf8"

	"nhooyr.io/websocket"
)

const (
	// messageTime bounds how long a message that has begun may take to end.
	messageTime = 30 * time.Second
	// talkTime is how long a goroutine waits for the next message of a peer whose
	// last two came no further apart, before the connection is parked.
	talkTime = time.Second
	// lingerTime and lingerBytes bound what is still read of a peer after the
	// last byte was sent: a connection closed on unread bytes is reset, and the
	// peer may never see why it was closed.
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// errNothing is what reading ends with when the connection may be parked: it
// stands between two messages, and nothing more has come.
var errNothing = errors.New("wsconn: nothing to read")

// read hands messages on until there is nothing to read or the connection ends.
//
// Each spell of reading has a Conn of nhooyr's of its own, made by its Accept on
// a handshake that nobody sent, whose answer goes nowhere. Between two messages
// such a Conn has no state but its buffers, and they are empty then.
func (c *Conn) read() error {
	t := newTransport(c)
	ws, err := websocket.Accept(t, anyHandshake, anyOrigin)
	if err != nil {
		return err
	}
	defer t.release()   // when nobody uses it any more
	defer ws.CloseNow() // ends its goroutine; the connection is not its to close
	ws.SetReadLimit(c.server.ReadLimit)
	for {
		typ, r, err := ws.Reader(context.Background()) // the connection's end ends it
		if err != nil {
			return err
		}
		if typ != websocket.MessageText {
			c.out.Close(codeUnsupported, "text messages only")
			return errors.New("peer sent a binary message")
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if c.out.Closing() {
			continue
		}
		if !utf8.Valid(text) {
			c.out.Close(codeNotUTF8, "not UTF-8")
			return errors.New("peer sent text that is not UTF-8")
		}
		c.handler.Handle(text)
		t.talks()
	}
}

// finish sends what is still to be sent and closes the connection.
func (c *Conn) finish(cause error) {
	violated := websocket.CloseStatus(cause) == -1 && !gone(cause)
	if violated {
		c.out.Close(codeProtocol, "protocol error") // unless a close frame went already
	}
	if !c.out.Closing() {
		c.out.Kill() // nobody is there to send it to
	}
	<-c.out.Idle()
	// Over TLS CloseWrite waits for a peer that does not read, 5 s by itself.
	defer time.AfterFunc(2*lingerTime, c.out.Kill).Stop()
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok && !gone(cause) {
		_ = half.CloseWrite() // over TLS the last record, which Kill leaves out
	}
	if violated {
		c.linger()
	}
	c.out.Kill()
	c.server.poller.leave(c)
}

// linger reads on until the peer has closed, for a bounded time.
func (c *Conn) linger() {
	_ = c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.conn, lingerBytes)
}

// gone reports whether err means that the peer cannot be reached any more, or
// did not answer in time.
func gone(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrDeadlineExceeded)
}
