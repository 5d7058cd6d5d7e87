// Package sqlhistory keeps messages in PostgreSQL or SQLite. Its [History] is a
// [chat.History] that outlasts the process and that several nodes can share.
//
//	h, err := sqlite.Open(ctx, "/var/lib/chatd/history.db")
//	…
//	service, err := chat.New(auth, chat.WithHistory(h))
//	…
//	err = service.Shutdown(ctx) // then
//	err = h.Close()
//
// Package [github.com/reto10/chat/sqlhistory/postgres] opens a history in PostgreSQL,
// [github.com/reto10/chat/sqlhistory/sqlite] in a file. A program links only the driver of
// the package that it imports.
//
// # Storing
//
// Concurrent calls of Append share a transaction: calls that arrive while one is written
// wait for the next. Calls for one channel are stored in the order in which they arrive.
// Nodes that share a PostgreSQL database lock the channel's row, which orders their
// messages. Append returns when the transaction is committed. On PostgreSQL this is as
// durable as the server's synchronous_commit makes it. On SQLite it is on disk, unless the
// history was opened with sqlite.OpenRelaxed.
//
// A caller whose context ends gets its error at once. If a transaction fails, all of its
// callers get the error. If the connection breaks during a commit, its result is unknown,
// and that is an error too. After an error the messages may have been stored.
//
// # Deleting
//
// A message that is older than [WithAge] is no longer returned. Its age counts from when it
// was stored, by the clock of the database; the clocks of nodes do not matter. In the
// background each channel is trimmed to its newest messages, by [WithCount] and [WithAge], a
// bounded number at a time. Reading after a message that is no longer kept returns
// [chat.ErrGone], and so does reading over rows that were deleted by hand.
//
// # Epochs, backups, failover
//
// A position must never name two messages. That could happen if a database goes back in
// time: if a backup is restored, if a standby that lagged behind takes over, or if a crash
// loses acknowledged commits. Then a new epoch begins. The positions that clients know are
// no longer valid, and a warning in the log says why. After a server has started, every
// node compares the database with what it has seen before, and only then reads or stores
// anything. A new epoch begins:
//
//   - on PostgreSQL, if the database is another one than before. Its system identifier or
//     its timeline differs (a standby was promoted, a base backup was recovered), or its
//     tables were created anew (a dump was restored).
//   - on PostgreSQL, if the server has started again and a running node has seen more of its
//     log on disk, has stored more, or knows of a start that the database does not know (an
//     older copy of the data directory).
//   - on PostgreSQL, if the server has started again and commits were not on disk:
//     synchronous_commit or fsync was off for a node that stored. From PostgreSQL 15 on the
//     same holds after the crash of one of its processes.
//   - on every database, if a running process gets a position that it had given out before.
//   - on SQLite, if the machine has started anew and the history was opened with
//     sqlite.OpenRelaxed, or on a pool whose synchronous is not FULL.
//
// A PostgreSQL server whose commits are on disk continues its epoch after a restart or a
// crash. During the first 2 seconds after a start nothing is stored or read: every node
// looks at the server in that time, twice a second. A node that cannot reach the server in
// that time, because it is paused or cut off, compares when it can. Positions that were
// given out until then may be the same as some that this node had seen. A history neither
// reads from nor writes to a standby.
//
// Beginning an epoch is a transaction that changes one row for each channel. It may take up
// to 5 minutes; until then callers get the error of their timeout.
//
// Some hosted servers do not let a role ask for the start of the server and the position of
// its log. There the history uses the checks that remain.
//
// One case cannot be detected: a SQLite file, or the whole PostgreSQL data directory, that
// is replaced by an older copy while no process has it open. Call [History.BeginEpoch] after
// that. If a SQLite file is replaced or removed while it is open, every call returns an
// error until all programs that use the file are started again. If it is overwritten in
// place, the history notices only positions that are given out twice.
//
// # Tables
//
// Opening a history creates the tables or brings them up to date: chat_history (one row:
// version, epoch, and what nodes know of the server), chat_channels (one row for each
// channel that ever had a message), chat_messages and chat_room (which [History.Check]
// writes to). On PostgreSQL they are in the first schema of the search_path. The layout
// belongs to this package and changes with it.
package sqlhistory
