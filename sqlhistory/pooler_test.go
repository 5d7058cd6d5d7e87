package sqlhistory_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/pgtest"
	"github.com/reto10/chat/sqlhistory/postgres"
)

// pgbouncer starts one in transaction mode before a server, with few connections: two
// requests of a client hardly ever get the same one. It returns the port.
func pgbouncer(t *testing.T, server *pgtest.Server) (port int) {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // which is not in everybody's PATH
	}
	upstream, err := pgx.ParseConfig(server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgbouncer") // the server's user reads it, not so t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	users := write("users", `"postgres" ""`+"\n")
	config := write("config", fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
`, upstream.Port, port, users))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := server.Command(program, config)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting pgbouncer (Debian's package pgbouncer): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	eventually(t, "pgbouncer to answer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, through(server.DSN("postgres"), port)+" default_query_exec_mode=exec")
		if err != nil {
			return false
		}
		return conn.Close(ctx) == nil
	})
	return port
}

// through is a DSN by way of another port.
func through(dsn string, port int) string {
	before, after, _ := strings.Cut(dsn, "port=")
	_, after, _ = strings.Cut(after, " ")
	return fmt.Sprintf("%sport=%d %s", before, port, after)
}

// Several nodes work behind a pooler that gives each transaction another connection, without
// any setting.
func TestBehindPgbouncer(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	port := pgbouncer(t, server)
	fresh := func(t testing.TB) database {
		t.Helper()
		d := onPostgres(t, server)
		d.dsn = through(d.dsn, port)
		return d
	}
	t.Run("History", func(t *testing.T) {
		chattest.TestHistory(t, func(t *testing.T) []chat.History {
			d := fresh(t)
			return []chat.History{d.open(t), d.open(t), d.open(t)}
		})
	})
	t.Run("Retention", func(t *testing.T) {
		chattest.TestRetention(t, func(t *testing.T, count int) []chat.History {
			d := fresh(t)
			return []chat.History{d.open(t, sqlhistory.WithCount(count)), d.open(t, sqlhistory.WithCount(count))}
		})
	})
	for name, run := range map[string]func(*testing.T, database){
		"ManyMayOpenItAtOnce": testOpenedAtOnce, "NewEpoch": testBeginEpoch, "DataHasAName": testIdentity, "Room": testRoom,
	} {
		t.Run(name, func(t *testing.T) { run(t, fresh(t)) })
	}
	t.Run("PoolOfTheCallers", func(t *testing.T) {
		d := fresh(t)
		if h, err := postgres.New(t.Context(), d.pool(t)); err == nil {
			closeHistory(t, h)
			t.Error("a pool that prepares statements was taken")
		} else if !strings.Contains(err.Error(), "default_query_exec_mode=exec") {
			t.Errorf("the error does not say what to set: %v", err)
		}
		for _, mode := range []string{"exec", "simple_protocol"} {
			d := database{dsn: d.dsn + " default_query_exec_mode=" + mode}
			var nodes []*sqlhistory.History
			for range 2 {
				h, err := postgres.New(t.Context(), d.pool(t))
				if err != nil {
					t.Fatal(err)
				}
				defer closeHistory(t, h)
				nodes = append(nodes, h)
			}
			var publishing sync.WaitGroup
			for i := range 40 {
				publishing.Go(func() { appendTo(t, nodes[i%2], mode, "🙂") })
			}
			publishing.Wait()
			if got := after(t, nodes[0], mode, chat.Position{}); len(got) != 40 {
				t.Errorf("%s: %d messages were stored", mode, len(got))
			}
		}
	})
}
