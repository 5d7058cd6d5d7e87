package sqlhistory_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// pool is a pool of connections of the test's own.
func (d database) pool(t testing.TB) *sql.DB {
	t.Helper()
	driver, name := "pgx", d.dsn
	if d.file != "" {
		driver, name = "sqlite", "file:"+d.file+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// exec runs a statement, as an operator may by hand.
func (d database) exec(t testing.TB, statement string) {
	t.Helper()
	if _, err := d.pool(t).ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// lock keeps others from storing until release is called.
func (d database) lock(t testing.TB) (release func()) {
	t.Helper()
	statements := []string{"BEGIN", "LOCK TABLE chat_channels IN EXCLUSIVE MODE"}
	if d.file != "" {
		statements = []string{"BEGIN IMMEDIATE"}
	}
	conn, err := d.pool(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range statements {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return func() {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// testHTTP pages through GET /messages of a service.
func testHTTP(t *testing.T, d database) {
	signer, err := chat.NewHS256([]byte("a test's secret of 32 bytes, no less"))
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(signer, chat.WithHistory(d.open(t)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(service)
	defer server.Close()
	defer func() {
		if err := service.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	token, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	type post struct {
		ID, Channel, Sender, Content, Time string
	}
	var want []post
	for i := range 25 {
		m, err := service.Broadcast(t.Context(), chat.Message{Channel: "news", Sender: "eva", Content: fmt.Sprint("🙂 ", i)})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, post{m.ID(), "news", "eva", m.Content, m.Time.Format("2006-01-02T15:04:05.000Z")})
	}
	var got []post
	query := "channel=news"
	pages := 0
	for more := true; more; pages++ {
		req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/messages?limit=10&"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token.AccessToken)
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Messages  []post
			More, Gap bool
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || page.Gap || len(page.Messages) == 0 {
			t.Fatalf("page %d: %s, %v, %+v", pages, resp.Status, err, page)
		}
		got = append(got, page.Messages...)
		more = page.More
		query = "after=" + got[len(got)-1].ID
	}
	if diff := cmp.Diff(want, got); diff != "" || pages != 3 {
		t.Errorf("%d pages (-want +got):\n%s", pages, diff)
	}
}

// A message whose publisher disconnects while it is stored reaches the sockets, without
// waiting for a next message.
func testPublisherGoesAway(t *testing.T, d database) {
	signer, err := chat.NewHS256([]byte("a test's secret of 32 bytes, no less"))
	if err != nil {
		t.Fatal(err)
	}
	registry := chat.NewMemoryRegistry()
	service, err := chat.New(signer, chat.WithRegistry(registry), chat.WithHistory(d.open(t)),
		chat.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	handled := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		service.ServeHTTP(w, r)
		close(handled)
	}))
	defer server.Close()
	defer service.Shutdown(context.Background())
	ear := hearer{chat.User{Name: "ana", Role: chat.RoleUser}, make(chan chat.Message, 10)}
	if _, err := registry.Add(t.Context(), ear, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Join(t.Context(), ear, "news"); err != nil {
		t.Fatal(err)
	}
	token, err := signer.Issue(chat.User{Name: "ops", Role: chat.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	release := d.lock(t)
	ctx, giveUp := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer giveUp()
	req, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/messages", strings.NewReader(`{"channel":"news","content":"stored"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.AccessToken)
	if resp, err := server.Client().Do(req); err == nil {
		resp.Body.Close()
		t.Fatalf("answered with %s while nothing can be stored", resp.Status)
	}
	select {
	case <-handled: // it has noticed
	case <-time.After(500 * time.Millisecond): // or it does not look
	}
	release()
	select {
	case m := <-ear.heard:
		if m.Content != "stored" {
			t.Errorf("heard %q", m.Content)
		}
	case <-time.After(patience):
		t.Errorf("stored are %q, and nothing was heard of it", after(t, d.open(t), "news", chat.Position{}))
	}
}

// hearer is a socket.
type hearer struct {
	user  chat.User
	heard chan chat.Message
}

func (h hearer) ID() string       { return "the only one" }
func (h hearer) User() chat.User  { return h.user }
func (h hearer) Since() time.Time { return time.Time{} }

func (h hearer) Deliver(e chat.Event) {
	if e.Type == chat.EventMessage {
		h.heard <- e.Message
	}
}
func (h hearer) Close(chat.CloseCode, string) {}
