package sqlhistory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/reto10/chat/sqlhistory/internal/database"
)

// ErrNewer means that a newer version of this package has created or changed the tables.
var ErrNewer = errors.New("sqlhistory: the tables are of a newer version than this program")

// migrate creates the tables or brings them up to date. Programs that start at the same time
// wait for the first of them. If other transactions hold locks, migrate retries until ctx
// ends; each try waits a short time.
func migrate(ctx context.Context, db *sql.DB, d dialect) error {
	steps := d.migrations()
	if version, err := schemaVersion(ctx, db, d); err != nil {
		return err
	} else if version == len(steps) {
		return nil // the role needs no right to change the schema
	}
	for {
		err := migrateOnce(ctx, db, d)
		if database.SQLState(err) != "55P03" { // lock_not_available: see postgres.locks
			return err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return err
		}
	}
}

// lockPause is the time between two tries. Transactions that waited behind the migration
// run meanwhile.
const lockPause = 500 * time.Millisecond

func migrateOnce(ctx context.Context, db *sql.DB, d dialect) error {
	steps := d.migrations()
	locks, _ := d.locks()
	return d.transact(ctx, db, func(tx queryer) error {
		for _, lock := range locks {
			if _, err := tx.ExecContext(ctx, lock); err != nil {
				return err
			}
		}
		from, err := schemaVersion(ctx, tx, d)
		if err != nil {
			return err
		}
		for version := from; version < len(steps); version++ {
			for _, statement := range steps[version] {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return fmt.Errorf("to version %d: %w", version+1, err)
				}
			}
		}
		if from == 0 {
			if _, err := tx.ExecContext(ctx, "INSERT INTO chat_history (version, epoch, incarnation) VALUES (0, $1, '')", newEpoch()); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, "UPDATE chat_history SET version = $1, identity = CASE WHEN identity = '' THEN $2 ELSE identity END",
			len(steps), newEpoch())
		return err
	})
}

// schemaVersion returns the version of the tables, 0 if there are none.
func schemaVersion(ctx context.Context, db queryer, d dialect) (version int, err error) {
	var there bool
	if err := db.QueryRowContext(ctx, d.exists()).Scan(&there); err != nil || !there {
		return 0, err
	}
	if err := db.QueryRowContext(ctx, "SELECT version FROM chat_history").Scan(&version); err != nil {
		return 0, fmt.Errorf("reading the version: %w", err)
	}
	if latest := len(d.migrations()); version > latest {
		return 0, fmt.Errorf("%w: %d, this one knows %d", ErrNewer, version, latest)
	}
	return version, nil
}
