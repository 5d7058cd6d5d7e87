package sqlhistory_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/postgres"
)

// stores counts the statements that store messages.
type stores struct{ n atomic.Int32 }

func (s *stores) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "INSERT INTO chat_messages") {
		s.n.Add(1)
	}
	return ctx
}

func (*stores) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestSeveralMessagesTakeOneStatement(t *testing.T) {
	d := onPostgres(t, startPostgres(t))
	config, err := pgx.ParseConfig(d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	var count stores
	config.Tracer = &count
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { db.Close() })
	h, err := postgres.New(t.Context(), db, sqlhistory.WithBatch(100), sqlhistory.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeHistory(t, h) })
	for _, tt := range []struct {
		name               string
		messages, channels int
		bytes              int // of content, each
		want               int32
	}{
		{"none", 0, 1, 1, 0},
		{"one", 1, 1, 1, 1},
		{"one channel", 100, 1, 1, 1},
		{"a channel each", 100, 100, 1, 1},
		{"more than a transaction may have", 250, 7, 1, 3},
		{"more bytes than a transaction may have", 12, 1, 1 << 20, 3},
	} {
		var msgs []chat.Message
		for i := range tt.messages {
			msgs = append(msgs, message(fmt.Sprint("c", i%tt.channels), strings.Repeat("x", tt.bytes)))
		}
		count.n.Store(0)
		if _, err := h.Append(t.Context(), msgs...); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := count.n.Load(); got != tt.want {
			t.Errorf("%s: %d statements, want %d", tt.name, got, tt.want)
		}
	}
}

// An invalid message prevents the other messages of its call from being stored.
func testInvalidAmongSeveral(t *testing.T, d database) {
	h := d.open(t)
	for _, content := range []string{"a\x00b", "a\xffb"} {
		_, err := h.Append(t.Context(), message("c", "1"), message("c", content), message("c", "3"))
		if !errors.Is(err, chat.ErrInvalid) {
			t.Errorf("Append with %q: %v, want ErrInvalid", content, err)
		}
	}
	wantAfter(t, h, "c", chat.Position{})
}
