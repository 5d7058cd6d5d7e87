package wsdial_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nhooyr.io/websocket" //lint:ignore SA1019 this package's own

	"github.com/reto10/chat/internal/wsdial"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const readLimit = 1000

// dialPeer dials a server whose handshakes a handler answers.
func dialPeer(t *testing.T, h http.HandlerFunc) (*wsdial.Client, error) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	d := wsdial.Dialer{HTTP: srv.Client(), Subprotocol: "chat.v1", ReadLimit: readLimit}
	c, err := d.Dial(t.Context(), srv.URL, http.Header{"X-Test": {"yes"}})
	if err == nil {
		t.Cleanup(c.Cut)
	}
	return c, err
}

func accepted(t *testing.T, script func(conn *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Test") != "yes" {
			t.Error("the header is not sent")
		}
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat.v1"}})
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		script(conn)
	}
}

func TestAClientReadsAndWritesMessages(t *testing.T) {
	ctx := t.Context()
	c, err := dialPeer(t, accepted(t, func(conn *websocket.Conn) {
		for {
			kind, text, err := conn.Read(ctx)
			if err != nil {
				return
			}
			_ = conn.Write(ctx, kind, text)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, text := range []string{"hi", "", strings.Repeat("é", readLimit/2)} {
		if err := c.Write(ctx, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(ctx); err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if c.Heard().Before(began) {
		t.Errorf("heard at %v, it began at %v", c.Heard(), began)
	}
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(ctx)
		read <- err
	}()
	if err := c.Ping(ctx); err != nil {
		t.Error(err)
	}
	c.Close(1000, "bye")
	if err := <-read; err == nil {
		t.Error("reading goes on")
	}
}

func TestHowReadingEnds(t *testing.T) {
	tests := []struct {
		name   string
		script func(conn *websocket.Conn)
		want   error
	}{
		{"closed", func(conn *websocket.Conn) { _ = conn.Close(4002, "bye") }, &wsdial.CloseError{Code: 4002, Reason: "bye"}},
		{"cut", func(conn *websocket.Conn) { _ = conn.CloseNow() }, wsdial.ErrBroken},
		{"too long", func(conn *websocket.Conn) {
			_ = conn.Write(context.Background(), websocket.MessageText, make([]byte, readLimit+1))
			_, _, _ = conn.Read(context.Background())
		}, wsdial.ErrFrame},
		{"binary", func(conn *websocket.Conn) {
			_ = conn.Write(context.Background(), websocket.MessageBinary, []byte("x"))
			_, _, _ = conn.Read(context.Background())
		}, wsdial.ErrFrame},
		{"not UTF-8", func(conn *websocket.Conn) {
			_ = conn.Write(context.Background(), websocket.MessageText, []byte("\xff"))
			_, _, _ = conn.Read(context.Background())
		}, wsdial.ErrFrame},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := dialPeer(t, accepted(t, tt.script))
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Read(t.Context())
			if closed, ok := errors.AsType[*wsdial.CloseError](tt.want); ok {
				if got, ok := errors.AsType[*wsdial.CloseError](err); !ok || *got != *closed {
					t.Errorf("got %v, want %v", err, closed)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("with the context", func(t *testing.T) {
		c, err := dialPeer(t, accepted(t, func(conn *websocket.Conn) { _, _, _ = conn.Read(context.Background()) }))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, err := c.Read(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhatIsNoUpgradeIsAnError(t *testing.T) {
	t.Run("an answer that says no", func(t *testing.T) {
		_, err := dialPeer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
			_, _ = io.WriteString(w, strings.Repeat("x", 5000))
		})
		a, ok := errors.AsType[*wsdial.Answer](err)
		if !ok || a.Status != 503 || a.Header.Get("Retry-After") != "7" || string(a.Body) != strings.Repeat("x", 1024) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a redirect", func(t *testing.T) {
		_, err := dialPeer(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				t.Error("it is followed")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		})
		if a, ok := errors.AsType[*wsdial.Answer](err); !ok || a.Status != http.StatusFound {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no subprotocol", func(t *testing.T) {
		_, err := dialPeer(t, func(w http.ResponseWriter, r *http.Request) {
			if conn, err := websocket.Accept(w, r, nil); err == nil {
				_, _, _ = conn.Read(context.Background())
				_ = conn.CloseNow()
			}
		})
		if err == nil || !strings.Contains(err.Error(), "does not speak chat.v1") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		d := wsdial.Dialer{HTTP: http.DefaultClient, Subprotocol: "chat.v1", ReadLimit: readLimit}
		_, err := d.Dial(t.Context(), "http://127.0.0.1:1/?since=very-long", nil)
		if err == nil || strings.Contains(err.Error(), "very-long") {
			t.Errorf("got %v", err)
		}
	})
}
