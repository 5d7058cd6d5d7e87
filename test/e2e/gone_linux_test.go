package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// handshake sends a handshake and leaves the answer to the caller.
func startHandshake(s *chatserver.Server, t *testing.T, name string, query ...string) net.Conn {
	t.Helper()
	conn, err := s.HTTP.Transport.(*http.Transport).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("GET", s.URL+"/ws/chat?"+chatserver.Values(query).Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(chatserver.UpgradeHeaders); i += 2 {
		req.Header.Set(chatserver.UpgradeHeaders[i], chatserver.UpgradeHeaders[i+1])
	}
	req.Header.Set("Authorization", "Bearer "+s.Token(name))
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Nothing more is asked for a client that has gone.
func TestWhoLeavesWhileBeingOpenedCostsNothingMore(t *testing.T) {
	h := newHolding()
	var joined, read atomic.Int32
	h.join = func(string) { joined.Add(1) }
	s := chatserver.Serve(t, h.options()...)
	id := s.Publish("", "1")[0]
	h.after = func(context.Context) error {
		read.Add(1)
		return nil
	}
	conn := startHandshake(s, t, "ana", "channel", "news", "since", id)
	wstest.Eventually(t, "the socket to be connecting", func() bool { return h.entered.Load() == 1 })
	_ = conn.Close()
	h.let <- struct{}{}
	wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
	if joined, read := joined.Load(), read.Load(); joined > 0 || read > 0 {
		t.Errorf("%d channels were joined and %d read for who has gone", joined, read)
	}
	list, err := s.Connected(t.Context(), "")
	if err != nil || len(list) > 0 {
		t.Errorf("connected: %v, %v", list, err)
	}
}

func TestWhoLeavesWhileMissedMessagesAreReadCostsNothingMore(t *testing.T) {
	h := newReadingHistory()
	s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
	var query []string
	for i := range 100 {
		channel := fmt.Sprint("c", i)
		query = append(query, "channel", channel, "since", s.Publish(channel, "1", "2")[0])
	}
	var reads atomic.Int32
	let := make(chan struct{})
	h.read = func(string) {
		reads.Add(1)
		<-let
	}
	conn := startHandshake(s, t, "ana", query...)
	wstest.Eventually(t, "channels to be read", func() bool { return reads.Load() == 8 })
	_ = conn.Close()
	close(let)
	wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
	if n := reads.Load(); n > 16 {
		t.Errorf("%d channels were read for who has gone, want those that had begun", n)
	}
}
