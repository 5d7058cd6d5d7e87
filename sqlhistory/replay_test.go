package sqlhistory_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/postgres"
	"github.com/reto10/chat/test/chatserver"
)

// selects counts the statements that read messages.
type selects struct{ n atomic.Int32 }

func (s *selects) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "chat_messages") && strings.Contains(data.SQL, "content") && !strings.Contains(data.SQL, "INSERT INTO") {
		s.n.Add(1)
	}
	return ctx
}

func (*selects) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestSocketsThatMissedTheSameReadItOnce(t *testing.T) {
	const sockets, missed = 60, 100
	config, err := pgx.ParseConfig(onPostgres(t, startPostgres(t)).dsn)
	if err != nil {
		t.Fatal(err)
	}
	var count selects
	config.Tracer = &count
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { db.Close() })
	h, err := postgres.New(t.Context(), db, sqlhistory.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeHistory(t, h) })
	s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
	var texts []string
	for i := range missed {
		texts = append(texts, fmt.Sprint(i))
	}
	since := s.Publish("", "before")[0]
	s.Publish("", texts...)
	count.n.Store(0)
	began := time.Now()
	for i := range sockets {
		c := s.Dial(fmt.Sprint("user", i), "since", since)
		if c.Welcome.Recovered == nil || !*c.Welcome.Recovered {
			t.Errorf("socket %d: welcome = %+v, want recovered", i, c.Welcome)
		}
		for _, text := range texts {
			c.WantText(text)
		}
		c.HangUp()
	}
	most := 2 + int32(time.Since(began)/(5*time.Second)) // a page is kept for five seconds
	if got := count.n.Load(); got == 0 || got > most {
		t.Errorf("the messages were read %d times for %d sockets, want %d at most", got, sockets, most)
	}
}
