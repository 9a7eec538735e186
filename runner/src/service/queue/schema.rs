//! The file's schema, with its version, and what is done once when a server opens it.

use std::path::Path;

use rusqlite::Connection;

use super::Error;

/// The schema's version, kept in SQLite's `user_version`.
const VERSION: i64 = 5;

/// Version 1. Strict tables: a value of another type is an error and not a surprise later.
const SCHEMA: &str = "
CREATE TABLE task (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    state            TEXT NOT NULL CHECK (state IN ('queued','verifying','running','completed','crashed',
                                                    'denied','failed','cancelled')),
    image            TEXT NOT NULL,
    input            BLOB NOT NULL,
    databases        TEXT NOT NULL,
    idempotency_key  TEXT UNIQUE,
    reason           TEXT,
    remedy           TEXT,
    denial           TEXT,
    result           BLOB,
    log              BLOB,
    attempts         INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created_at       TEXT NOT NULL,
    updated_at       TEXT NOT NULL
) STRICT;
CREATE INDEX task_by_state ON task (state, id);
PRAGMA user_version = 1;
";

/// From version 1 to 2: why a task was allowed to run, and what it asked of the outside.
const KEEPS_RUNS: &str = "
ALTER TABLE task ADD COLUMN admission TEXT;
ALTER TABLE task ADD COLUMN egress TEXT;
PRAGMA user_version = 2;
";

/// From version 2 to 3: who asked. Of earlier tasks nobody knows.
const KEEPS_CALLERS: &str = "
ALTER TABLE task ADD COLUMN caller TEXT NOT NULL DEFAULT '{}';
PRAGMA user_version = 3;
";

/// From version 3 to 4: a task's own token, until it has ended.
const KEEPS_TOKENS: &str = "
ALTER TABLE task ADD COLUMN token TEXT;
PRAGMA user_version = 4;
";

/// From version 4 to 5: what hides a task's input and result in the node's log, and the entry about its end.
const KEEPS_SALTS: &str = "
ALTER TABLE task ADD COLUMN salt BLOB;
ALTER TABLE task ADD COLUMN entry INTEGER;
PRAGMA user_version = 5;
";

/// Sets the durability, then makes or checks the schema.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let sqlite = |error| super::store::sqlite(path, error);
    connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(sqlite)?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sqlite)?;
    if mode != "wal" {
        return Err(Error::Corrupt(format!("the file cannot be kept in WAL mode (it stays in {mode:?})")));
    }
    // What is erased is overwritten, not only forgotten.
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;")
        .map_err(sqlite)?;
    let change =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sqlite)?;
    match change.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map_err(sqlite)? {
        found @ 0..VERSION => {
            let steps = [SCHEMA, KEEPS_RUNS, KEEPS_CALLERS, KEEPS_TOKENS, KEEPS_SALTS];
            let missing = steps.iter().skip(usize::try_from(found).unwrap_or_default());
            change.execute_batch(&missing.copied().collect::<String>()).map_err(sqlite)?;
        }
        VERSION => {}
        found => return Err(Error::Newer { path: path.to_owned(), found, known: VERSION }),
    }
    change.commit().map_err(sqlite)
}
