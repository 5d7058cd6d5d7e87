package wstest

import (
	"errors"
	"testing"
)

// Client is a test's client. It fails the test if anything goes wrong. Call its methods from
// the test's own goroutine.
type Client struct {
	*Peer
	t testing.TB
}

// NewClient returns a client for a peer that has done the handshake. It closes the
// connection at the end of the test.
func NewClient(t testing.TB, p *Peer) *Client {
	t.Cleanup(func() { _ = p.Close() })
	return &Client{p, t}
}

// Want returns the next event of a type. It skips the others.
func (c *Client) Want(typ string) Event {
	c.t.Helper()
	for {
		e, err := c.NextEvent()
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", typ, err)
		}
		if e.Type == typ {
			return e
		}
	}
}

// Say sends a text message.
func (c *Client) Say(text string) { c.Send(Text(text)) }

// CloseCode skips events until the server closes, and returns its code.
func (c *Client) CloseCode() int {
	c.t.Helper()
	for {
		_, err := c.NextEvent()
		if closed, ok := errors.AsType[*CloseError](err); ok {
			return closed.Code
		}
		if err != nil {
			c.t.Fatalf("waiting for a close frame: %v", err)
		}
	}
}
