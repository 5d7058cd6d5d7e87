// Package sqlhistory keeps messages in PostgreSQL or SQLite: a [chat.History] that
// outlasts the process and that several nodes can share.
//
//	h, err := sqlhistory.OpenSQLite(ctx, "/var/lib/chatd/history.db")
//	…
//	service, err := chat.New(auth, chat.WithHistory(h))
//	…
//	err = service.Shutdown(ctx) // then
//	err = h.Close()
//
// # Storing
//
// Concurrent calls of Append share a transaction: while one is written, what comes
// waits for the next. Of one channel the calls are stored in the order in which they
// came, and what nodes do at once in one PostgreSQL is put in order by the channel's
// row. A message is acknowledged when its transaction is committed: on PostgreSQL
// that is as safe as the server's synchronous_commit makes it, on SQLite it is on
// disk, unless [WithRelaxedSync] says otherwise.
//
// A caller whose context ends gets its error at once, and so does everyone in a
// transaction that failed; when the connection broke while it was committed nobody
// knows, and it is an error too. Such a message may have been stored all the same.
//
// # Forgetting
//
// A message that is older than [WithAge] is not read any more. Its age counts from when
// it was stored, by the clock of the database: the clocks of nodes decide nothing. In
// the background each channel is cut down to its newest messages, by [WithCount] and
// [WithAge], a bounded number at a time. Reading behind a message that is gone is
// [chat.ErrGone], never a hole; a hole that somebody made by hand is that as well.
//
// # Epochs, backups, failover
//
// A place is never to name two messages. It would when a database went back in time:
// a backup was restored, a standby that lagged behind took over, or a crash took
// commits that were acknowledged. Then a new epoch begins, in which the places known to
// clients are gone, and a warning in the log says why. Every node compares what it has
// seen with the database before it stores or reads anything on a server that was
// started since. So a new epoch begins
//
//   - on PostgreSQL, when the database is another one than before: its system
//     identifier or timeline is (a standby was promoted, a base backup recovered), or
//     its tables were made anew (a dump was restored);
//   - on PostgreSQL, when the server was started again and a node that runs had seen
//     more of its log on disk, or had stored more, or knows of a start that the
//     database does not (an older copy of the data directory);
//   - on PostgreSQL, when the server was started again after commits that were not on
//     disk: synchronous_commit or fsync was off for a node that stored. From
//     PostgreSQL 15 on the same holds when it recovered because one of its processes
//     crashed;
//   - wherever a process that goes on running finds places free that it had given out;
//   - on SQLite with relaxed sync, or with a pool whose synchronous is not FULL, when
//     the machine has started anew.
//
// A PostgreSQL server whose commits are on disk goes on in its epoch, whether it was
// restarted or crashed. The first 2 seconds after a start nothing is stored or read:
// every node looks at the server meanwhile, twice a second. A node that does not reach
// it in that time, because it is paused or cut off, has its say when it does; what was
// acknowledged until then may have places that it had seen. A server that follows
// another one is neither read nor written.
//
// To begin an epoch is a transaction that changes a row for each channel. It may take
// up to 5 minutes, in which callers get their timeout's error.
//
// Who may not ask for the server's start and the position of its log, as on some
// servers that are run by others, gets what can be told by the rest.
//
// It cannot be noticed that a SQLite file, or the PostgreSQL data directory as a
// whole, was replaced by an older copy while no process had it open. Whoever does that
// calls [History.BeginEpoch]. A SQLite file that is replaced or removed while it is
// open is an error of everything, until the programs that use it are started again; one
// that is overwritten in place is not noticed, but for places that are given again.
//
// # Tables
//
// They are made, and brought up to date, when a history is opened: chat_history (one
// row: version, epoch, and what nodes know of the server), chat_channels (a row for
// each channel there ever was), chat_messages and chat_room (written to by
// [History.Check]). On PostgreSQL they are in the first schema of the search_path. The
// layout is this package's own and changes with it.
package sqlhistory
