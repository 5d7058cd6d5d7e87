package chat_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// Nothing more is asked for a client that has gone.
func TestWhoLeavesWhileBeingOpenedCostsNothingMore(t *testing.T) {
	h := newHolding()
	var joined, read atomic.Int32
	h.join = func(string) { joined.Add(1) }
	s := serve(t, h.options()...)
	id := s.publish("", "1")[0]
	h.after = func(context.Context) error {
		read.Add(1)
		return nil
	}
	conn, err := s.http.Transport.(*http.Transport).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("GET", s.url+"/ws/chat?"+values([]string{"channel", "news", "since", id}).Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(upgradeHeaders); i += 2 {
		req.Header.Set(upgradeHeaders[i], upgradeHeaders[i+1])
	}
	req.Header.Set("Authorization", "Bearer "+s.token("ana"))
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the socket to be connecting", func() bool { return h.entered.Load() == 1 })
	_ = conn.Close()
	h.let <- struct{}{}
	eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
	if joined, read := joined.Load(), read.Load(); joined > 0 || read > 0 {
		t.Errorf("%d channels were joined and %d read for who has gone", joined, read)
	}
	list, err := s.Connected(t.Context(), "")
	if err != nil || len(list) > 0 {
		t.Errorf("connected: %v, %v", list, err)
	}
}
