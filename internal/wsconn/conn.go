//lint:file-ignore SA1019 nhooyr.io/websocket is the owner's choice; the same code lives on as github.com/coder/websocket

// Package wsconn is a WebSocket as the service sees one: whole text messages
// come in, frames go out through an outbox, and it ends with a close code.
//
// nhooyr.io/websocket does the handshake, reads frames and answers control
// frames; it sits on a connection of ours through which its own writes keep
// their place among the frames of the outbox. This is its only importer.
package wsconn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"nhooyr.io/websocket"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/wire"
)

// Close codes of RFC 6455, section 7.4.1, that this package sends by itself.
const (
	codeProtocol    = 1002
	codeUnsupported = 1003
	codeNotUTF8     = 1007
)

const (
	// messageTime bounds how long a message that has begun may take to end.
	messageTime = 30 * time.Second
	// lingerTime and lingerBytes bound what is still read of a peer after the
	// last byte was sent: a connection closed on unread bytes is reset, and the
	// peer may never see why it was closed.
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// Conn is one accepted WebSocket.
type Conn struct {
	out   *fanout.Outbox
	ws    *websocket.Conn
	conn  net.Conn
	heard atomic.Bool // bytes came since the last beat
}

// Out is the writing side. It is corked until its owner uncorks it.
func (c *Conn) Out() *fanout.Outbox { return c.out }

// Serve reads messages, handing each to handle, until the socket ends; then it
// closes the connection and says why it ended. handle is called by the calling
// goroutine alone, and no more once a close frame was sent.
func (c *Conn) Serve(handle func(text []byte)) error {
	err := c.read(handle)
	c.finish(err)
	return err
}

// Beat is called once a heartbeat. It asks the peer for a sign of life, and
// kills the connection when none came since the beat before. A peer that takes
// its backlog is alive, and would see a ping only behind it.
func (c *Conn) Beat() {
	if c.out.Moving() {
		c.heard.Store(true)
		return
	}
	if !c.heard.Swap(false) {
		c.out.Kill()
		return
	}
	c.out.Ahead(wire.PingFrame)
}

func (c *Conn) read(handle func(text []byte)) error {
	ctx := context.Background() // the connection's end is what ends a read
	for {
		typ, r, err := c.ws.Reader(ctx)
		if err != nil {
			return err
		}
		if typ != websocket.MessageText {
			c.out.Close(codeUnsupported, "text messages only")
			return errors.New("peer sent a binary message")
		}
		// No read deadline: that one is the outbox's, for the answer to a close frame.
		tooLong := time.AfterFunc(messageTime, c.out.Kill)
		text, err := io.ReadAll(r)
		tooLong.Stop()
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
		handle(text)
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
	_ = c.ws.CloseNow()
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok && !gone(cause) {
		_ = half.CloseWrite() // over TLS the last record, which Kill leaves out
	}
	if violated {
		c.linger()
	}
	c.out.Kill()
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

// transport is the connection as nhooyr's Conn sees it.
type transport struct {
	net.Conn
	c     *Conn
	early []byte // what came with the handshake
}

func (t *transport) Read(p []byte) (int, error) {
	if len(t.early) > 0 {
		n := copy(p, t.early)
		t.early = t.early[n:]
		return n, nil
	}
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.c.heard.Store(true)
	}
	if err == io.EOF {
		// No WebSocket ends without a close frame, and nhooyr would take an EOF
		// between two fragments for the end of their message.
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Write gets nhooyr's own frames: pongs and close frames, each in one call.
func (t *transport) Write(p []byte) (int, error) {
	t.c.out.Ahead(bytes.Clone(p))
	return len(p), nil
}

// Close is not nhooyr's to do: the outbox may have more to send.
func (t *transport) Close() error { return nil }
