package sqlhistory_test

// versionOne makes the tables of version 1, in SQLite or not.
var versionOne = map[bool][]string{
	true: {
		`CREATE TABLE chat_history ( one INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1), version INTEGER NOT NULL, epoch TEXT NOT NULL, incarnation TEXT NOT NULL ) STRICT`,
		`CREATE TABLE chat_channels ( id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL, last INTEGER NOT NULL, began INTEGER NOT NULL DEFAULT 0, gone INTEGER NOT NULL DEFAULT 0, oldest INTEGER NOT NULL ) STRICT`,
		`CREATE TABLE chat_messages ( channel INTEGER NOT NULL, seq INTEGER NOT NULL, ms INTEGER NOT NULL, sender TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (channel, seq) ) STRICT, WITHOUT ROWID`,
	},
	false: {
		`CREATE TABLE chat_history ( one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL, epoch text NOT NULL, incarnation text NOT NULL )`,
		`CREATE TABLE chat_channels ( id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE, epoch text NOT NULL, last bigint NOT NULL, began bigint NOT NULL DEFAULT 0, gone bigint NOT NULL DEFAULT 0, oldest bigint NOT NULL ) WITH (fillfactor = 50)`,
		`CREATE TABLE chat_messages ( channel bigint NOT NULL, seq bigint NOT NULL, ms bigint NOT NULL, sender text NOT NULL, content text NOT NULL, PRIMARY KEY (channel, seq) )`,
	},
}
