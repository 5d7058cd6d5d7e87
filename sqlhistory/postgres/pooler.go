package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// errPooler means that a pool prepares statements through a pooler, which may run them on
// another connection.
var errPooler = errors.New("the connection goes through a pooler such as pgbouncer, which mixes up prepared statements: " +
	"open the pool with default_query_exec_mode=exec in its connection string")

// suitPooler turns prepared statements off if the connection goes through a pooler.
func suitPooler(ctx context.Context, server *pgx.ConnConfig) error {
	if !prepares(server.DefaultQueryExecMode) {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	pooled, err := isPooled(ctx, conn.PgConn())
	if pooled {
		server.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	return err
}

// checkPooler rejects a pool of the caller's that prepares statements through a pooler. It
// accepts the connections of other drivers.
func checkPooler(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driverConn any) error {
		c, ok := driverConn.(*stdlib.Conn)
		if !ok || !prepares(c.Conn().Config().DefaultQueryExecMode) {
			return nil
		}
		pooled, err := isPooled(ctx, c.Conn().PgConn())
		if pooled {
			err = errPooler
		}
		return err
	})
}

// prepares reports whether a statement takes more than one round trip, because it is
// prepared or described first.
func prepares(mode pgx.QueryExecMode) bool {
	return mode != pgx.QueryExecModeExec && mode != pgx.QueryExecModeSimpleProtocol
}

// isPooled reports whether the server process that answers is another one than the server
// named when the connection was made. It prepares no statement.
func isPooled(ctx context.Context, conn *pgconn.PgConn) (bool, error) {
	results, err := conn.Exec(ctx, "SELECT pg_backend_pid()").ReadAll()
	if err != nil {
		return false, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return false, fmt.Errorf("pg_backend_pid answers %v", results)
	}
	pid, err := strconv.ParseUint(string(results[0].Rows[0][0]), 10, 32)
	return uint32(pid) != conn.PID(), err
}
