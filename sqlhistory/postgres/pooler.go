package sqlhistory

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

// errPooler is a pool that prepares statements, which a pooler between it and the
// server gives to another connection.
var errPooler = errors.New("the connection goes through a pooler such as pgbouncer, which mixes up prepared statements: " +
	"open the pool with default_query_exec_mode=exec in its connection string")

// suitPooler has statements not be prepared where a pooler is between here and the
// server.
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

// checkPooler refuses a pool of the caller's that prepares statements where a pooler is
// between it and the server. Other drivers' connections it leaves alone.
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

// prepares reports whether a statement is sent in more than one round trip, as one that
// is prepared or described is.
func prepares(mode pgx.QueryExecMode) bool {
	return mode != pgx.QueryExecModeExec && mode != pgx.QueryExecModeSimpleProtocol
}

// isPooled reports whether the process that answers is another one than the
// connection was told of when it was made. It asks without preparing anything.
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
