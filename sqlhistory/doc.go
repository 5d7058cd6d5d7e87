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
// In the background each channel is cut down to its newest messages, by [WithCount]
// and [WithAge], a bounded number at a time. Reading behind a message that is gone
// is [chat.ErrGone], never a hole.
//
// # Epochs, backups, failover
//
// A place is never to name two messages. It would when a database went back in time:
// a backup was restored, or a standby that lagged behind took over. Then a new epoch
// has to begin, in which the places known to clients are gone. That happens by itself
//
//   - on PostgreSQL, when the history is opened or its connection was lost and the
//     database is another one than before: its system identifier or timeline is
//     (a standby was promoted, a base backup recovered), or its tables were made anew
//     (a dump was restored);
//   - wherever a process that goes on running finds places free that it had given out;
//   - on SQLite with relaxed sync, when the machine has started anew.
//
// It cannot be noticed that a SQLite file, or the PostgreSQL data directory as a
// whole, was replaced by an older copy while no process had it open. Whoever does that
// calls [History.BeginEpoch].
//
// # Tables
//
// They are made, and brought up to date, when a history is opened: chat_history (one
// row: version and epoch), chat_channels (a row for each channel there ever was) and
// chat_messages. On PostgreSQL they are in the first schema of the search_path. The
// layout is this package's own and changes with it.
package sqlhistory
