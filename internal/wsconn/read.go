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
	// messageTime bounds the time from the first to the last byte of a message.
	messageTime = 30 * time.Second
	// talkTime is how long a goroutine waits for the next message before it parks the
	// connection, if the last two messages were no further apart.
	talkTime = time.Second
	// lingerTime and lingerBytes bound how much is read after the last byte was sent.
	// Closing a connection with unread bytes resets it, and the peer may never see the
	// close frame.
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// errNothing ends reading when the connection may be parked: it is between two messages
// and no more bytes have arrived.
var errNothing = errors.New("wsconn: nothing to read")

// read passes messages to the handler until there is nothing to read or the connection
// ends.
//
// Each call creates an nhooyr Conn. It accepts a synthetic handshake whose answer is
// discarded. Between two messages such a Conn has no state except its buffers, which are
// empty then.
func (c *Conn) read() error {
	t := newTransport(c)
	ws, err := websocket.Accept(t, anyHandshake, anyOrigin)
	if err != nil {
		return err
	}
	defer t.release()   // after CloseNow: nobody uses t any more
	defer ws.CloseNow() // ends nhooyr's goroutine; transport.Close keeps the connection open
	ws.SetReadLimit(c.server.ReadLimit)
	for {
		typ, r, err := ws.Reader(context.Background()) // returns when the connection ends
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
		c.handling.Store(true)
		c.handler.Handle(text)
		c.handling.Store(false)
		t.talks()
	}
}

// finish writes the rest of the outbox and closes the connection.
func (c *Conn) finish(cause error) {
	violated := websocket.CloseStatus(cause) == -1 && !gone(cause)
	if violated {
		c.out.Close(codeProtocol, "protocol error") // does nothing after another close frame
	}
	if !c.out.Closing() {
		c.out.Kill() // the peer cannot be reached
	}
	<-c.out.Idle()
	// Over TLS CloseWrite waits up to 5 s for a peer that does not read.
	defer time.AfterFunc(2*lingerTime, c.out.Kill).Stop()
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok && !gone(cause) {
		_ = half.CloseWrite() // over TLS it writes the last record, which Kill does not
	}
	if violated {
		c.linger()
	}
	c.out.Kill()
	c.server.poller.leave(c)
}

// linger reads until the peer has closed its end, for a bounded time.
func (c *Conn) linger() {
	_ = c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.conn, lingerBytes)
}

// gone reports whether err means that the peer cannot be reached or did not answer in
// time.
func gone(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrDeadlineExceeded)
}
