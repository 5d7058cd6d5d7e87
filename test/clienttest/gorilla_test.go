package clienttest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// startGorilla runs an agent on gorilla/websocket, in goroutines of this process.
func startGorilla(t *testing.T, trusted *authority) *agent {
	commands, stdin := io.Pipe()
	stdout, events := io.Pipe()
	g := &gorilla{tls: &tls.Config{RootCAs: trusted.pool()}, events: json.NewEncoder(events)}
	ended := make(chan error, 1)
	go func() {
		err := g.run(commands)
		g.reading.Wait()
		_ = commands.Close()
		_ = events.Close()
		ended <- err
	}()
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	t.Cleanup(cancel)
	context.AfterFunc(ctx, func() {
		_ = stdin.CloseWithError(ctx.Err())
		_ = stdout.CloseWithError(ctx.Err())
	})
	return newAgent(t, stdin, stdout, func() error { return <-ended })
}

// gorilla is an agent on gorilla/websocket.
type gorilla struct {
	tls     *tls.Config
	conn    *websocket.Conn
	reading sync.WaitGroup

	mu     sync.Mutex
	events *json.Encoder
}

func (g *gorilla) tell(e event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.events.Encode(e) // nobody is there to be told otherwise
}

func (g *gorilla) run(commands io.Reader) error {
	lines := json.NewDecoder(commands)
	for {
		var c command
		if err := lines.Decode(&c); errors.Is(err, io.EOF) {
			if g.conn != nil {
				_ = g.conn.Close()
			}
			return nil
		} else if err != nil {
			return err
		}
		if err := g.carryOut(c); err != nil {
			g.tell(event{Event: "failed", Text: err.Error()})
		}
	}
}

func (g *gorilla) carryOut(c command) error {
	switch c.Do {
	case "request":
		return g.request(c)
	case "connect":
		return g.connect(c)
	case "send":
		_ = g.conn.SetWriteDeadline(time.Now().Add(patience))
		return g.conn.WriteMessage(websocket.TextMessage, []byte(c.Text))
	case "ping":
		return g.conn.WriteControl(websocket.PingMessage, []byte(c.Text), time.Now().Add(patience))
	case "close":
		frame := websocket.FormatCloseMessage(c.Code, "")
		return g.conn.WriteControl(websocket.CloseMessage, frame, time.Now().Add(patience))
	case "drop":
		return g.conn.NetConn().(*tls.Conn).NetConn().Close()
	}
	return errors.New("unknown command " + c.Do)
}

func (g *gorilla) request(c command) error {
	req, err := http.NewRequest(c.Method, c.URL, strings.NewReader(c.Text))
	if err != nil {
		return err
	}
	req.Header = header(c)
	client := &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{TLSClientConfig: g.tls, DisableKeepAlives: true},
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	g.tell(event{Event: "response", Status: resp.StatusCode, Text: string(body)})
	return nil
}

func (g *gorilla) connect(c command) error {
	dialer := websocket.Dialer{
		TLSClientConfig:   g.tls,
		HandshakeTimeout:  patience,
		Subprotocols:      c.Protocols,
		EnableCompression: true, // offers it, as browsers do
	}
	conn, resp, err := dialer.Dial(c.URL, header(c))
	if errors.Is(err, websocket.ErrBadHandshake) {
		g.tell(event{Event: "refused", Status: resp.StatusCode})
		return nil
	}
	if err != nil {
		return err
	}
	conn.SetPongHandler(func(text string) error {
		g.tell(event{Event: "pong", Text: text})
		return nil
	})
	g.conn = conn
	g.tell(event{Event: "open", Text: conn.Subprotocol()})
	g.reading.Go(func() { g.read(conn) })
	return nil
}

func (g *gorilla) read(conn *websocket.Conn) {
	defer conn.Close()
	for {
		kind, frame, err := conn.ReadMessage()
		if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
			g.tell(event{Event: "close", Code: closed.Code, Text: closed.Text})
			return
		}
		switch {
		case err != nil:
			g.tell(event{Event: "close", Code: websocket.CloseAbnormalClosure})
			return
		case kind == websocket.TextMessage:
			g.tell(event{Event: "text", Text: string(frame)})
		default:
			g.tell(event{Event: "binary", Text: string(frame)})
		}
	}
}

func header(c command) http.Header {
	h := make(http.Header)
	for name, value := range c.Header {
		h.Set(name, value)
	}
	return h
}
