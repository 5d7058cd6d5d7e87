package chatdtest

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/url"

	"github.com/reto10/chat/test/wstest"
)

// Dial does a WebSocket handshake with a path and a query. Headers are lines without their
// end. It returns the status, and a client only if that is 101.
func (d *Process) Dial(target string, headers ...string) (*wstest.Client, int) {
	d.t.Helper()
	at, err := url.Parse(d.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	dialer := &net.Dialer{Timeout: Patience}
	var conn net.Conn
	if at.Scheme == "https" {
		conn, err = tls.DialWithDialer(dialer, "tcp", at.Host, &tls.Config{InsecureSkipVerify: true})
	} else {
		conn, err = dialer.Dial("tcp", at.Host)
	}
	if err != nil {
		d.t.Fatalf("dialling: %v", err)
	}
	p := wstest.NewPeer(conn)
	c := wstest.NewClient(d.t, p)
	resp, err := p.Handshake(wstest.Request(at.Host, target, headers...))
	if err != nil {
		d.t.Fatalf("shaking hands: %v", err)
	}
	defer func() { _ = resp.Body.Close() }() // a refusal has a body
	if resp.StatusCode != http.StatusSwitchingProtocols {
		_ = p.Close()
		return nil, resp.StatusCode
	}
	return c, resp.StatusCode
}

// Connect opens a socket with a token and a query, such as "since", id. It retries while the
// server answers 503, as clients must.
func (d *Process) Connect(token string, query ...string) (c *wstest.Client) {
	d.t.Helper()
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Add(query[i], query[i+1])
	}
	wstest.Eventually(d.t, "the server to accept a socket", func() bool {
		var status int
		c, status = d.Dial("/ws/chat?"+values.Encode(), wstest.Bearer(token))
		if c == nil && status != http.StatusServiceUnavailable {
			d.t.Fatalf("connecting: status %d", status)
		}
		return c != nil
	})
	return c
}
